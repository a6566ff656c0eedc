"""What a file is that is to be sent, and the headers that HQ would send with it."""

from collections.abc import Mapping

import orjson
from lxml import etree

from casewire.hq import Request
from schemas.values import Json

JSON = "application/json"
XML = "text/xml"


def guessed(name: str, body: bytes, *, app_id: str, received_on: str) -> Request:
    """Return the request for a file; `app_id` and `received_on` are of forms, empty if unsaid.

    XML and JSON are told by the first byte, kinds as protocol.md §6 shows them; a body that is
    neither goes as text/xml, as an app id does.
    """
    body = body.strip()
    kind, said = _guessed_json(body) if body[:1] in (b"{", b"[") else _guessed_xml(body)
    headers = {}
    query = ""
    if kind in ("form", "form_stub"):
        headers["received-on"] = received_on or said.get("received_on")
    if kind == "form":
        query = f"app_id={app_id or said.get('app_id')}"
    if kind == "case":
        headers["server-modified-on"] = said.get("server_date_modified")
    return Request(
        kind=kind,
        body=body,
        content_type=JSON if body[:1] in (b"{", b"[") else XML,
        headers=tuple((key, value) for key, value in headers.items() if value),
        query=query,
        subject=name,
    )


def _guessed_json(body: bytes) -> tuple[str, Mapping[str, Json]]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "broken", {}
    if not isinstance(value, dict):
        return "custom", {}
    if "case_id" in value and "properties" in value:
        return "case", value
    if "form" in value:
        return "form", value
    return ("form_stub", value) if "case_ids" in value else ("other", value)


def _guessed_xml(body: bytes) -> tuple[str, Mapping[str, Json]]:
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError:
        return ("broken" if body.startswith(b"<") else "other"), {}
    return ("case" if etree.QName(root).localname == "case" else "form"), {}
