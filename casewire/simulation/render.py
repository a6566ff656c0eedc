"""The bodies that HQ forwards, as protocol.md §6 and its samples (tests/fixtures/hq) show them."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Final
from xml.etree import ElementTree as ET

from casewire.simulation.model import Block, Case, Form, Index, Location, User
from schemas.times import from_datetime
from schemas.values import Json

CASE_XMLNS: Final = "http://commcarehq.org/case/transaction/v2"
META_XMLNS: Final = "http://openrosa.org/jr/xforms"
FORM_XMLNS: Final = "http://openrosa.org/formdesigner/"


def encoded(value: Json) -> bytes:
    """Return JSON as HQ's encoder writes it: spaces after separators, ASCII only."""
    return json.dumps(value).encode()


def case_object(case: Case, domain: str) -> dict[str, Json]:
    """Return the case as HQ's JSON gives it (§6.4), removed indices with an empty `case_id`."""
    return {
        "domain": domain,
        "case_id": case.case_id,
        "user_id": case.user_id,
        "closed": case.closed,
        "xform_ids": list(case.xform_ids),
        "date_closed": case.date_closed and from_datetime(case.date_closed),
        "date_modified": case.date_modified and from_datetime(case.date_modified),
        "server_date_modified": from_datetime(case.server_modified_on),
        "properties": {
            **case.properties,
            "external_id": case.external_id,
            "owner_id": case.owner_id,
            "case_name": case.name,
            "case_type": case.case_type,
            "date_opened": case.date_opened and django_time(case.date_opened),
        },
        "indices": {
            name: {
                "case_type": index.case_type,
                "case_id": index.case_id,
                "relationship": index.relationship,
            }
            for name, index in case.indices.items()
        },
        "attachments": {},
    }


def django_time(time: datetime) -> str:
    """Return a time as Django's JSON encoder does: milliseconds unless zero, no zone."""
    naive = time.astimezone(UTC).replace(tzinfo=None)
    return naive.isoformat(timespec="milliseconds" if naive.microsecond else "seconds")


def case_json(case: Case, domain: str) -> bytes:
    return encoded(case_object(case, domain))


def case_xml(case: Case) -> bytes:
    """Return the case as XML of version 2.0 (§6.3)."""
    root = ET.Element("case", case_id=case.case_id, date_modified=_modified(case))
    root.set("user_id", case.user_id)
    root.set("xmlns", CASE_XMLNS)
    create = ET.SubElement(root, "create")
    _leaf(create, "case_type", case.case_type)
    _leaf(create, "case_name", case.name)
    _leaf(create, "owner_id", case.owner_id)
    update = ET.SubElement(root, "update")
    _external_id(update, case)
    _properties(update, case)
    if case.indices:
        parent = ET.SubElement(root, "index")
        for name, index in sorted(case.indices.items()):
            leaf = _leaf(parent, name, index.case_id)
            leaf.set("case_type", index.case_type)
            if index.relationship == "extension":
                leaf.set("relationship", index.relationship)
    if case.closed:
        ET.SubElement(root, "close")
    return _xml(root)


def case_xml_v1(case: Case) -> bytes:
    """Return the case as XML of version 1.0: no namespace, no indices (§6.3)."""
    root = ET.Element("case")
    _leaf(root, "case_id", case.case_id)
    _leaf(root, "date_modified", _modified(case))
    create = ET.SubElement(root, "create")
    _leaf(create, "case_type_id", case.case_type)
    _leaf(create, "user_id", case.user_id)
    _leaf(create, "case_name", case.name)
    _external_id(create, case)
    update = ET.SubElement(root, "update")
    _leaf(update, "owner_id", case.owner_id)
    _properties(update, case)
    if case.closed:
        ET.SubElement(root, "close")
    return _xml(root)


def _xml(root: ET.Element) -> bytes:
    xml: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=False)
    return xml


def _modified(case: Case) -> str:
    return from_datetime(case.date_modified or case.server_modified_on)


def _external_id(parent: ET.Element, case: Case) -> None:
    if case.external_id:
        _leaf(parent, "external_id", case.external_id)


def _properties(parent: ET.Element, case: Case) -> None:
    if case.date_opened:
        _leaf(parent, "date_opened", case.date_opened.astimezone(UTC).date().isoformat())
    for name, value in sorted(case.properties.items()):
        _leaf(parent, name, value)


def _leaf(parent: ET.Element, tag: str, text: str) -> ET.Element:
    leaf = ET.SubElement(parent, tag)
    leaf.text = text
    return leaf


def form_object(form: Form, domain: str) -> dict[str, Json]:
    """Return the form as HQ's form API gives it (§6.2)."""
    edited_on = form.edited_on and form.edited_on.replace(tzinfo=None).isoformat()
    server_time = from_datetime(form.server_time)
    xml = form_xml(form)
    tree = _form_tree(form, from_datetime)
    return {
        "app_id": form.app_id,
        "archived": False,
        "attachments": {
            "form.xml": {
                "content_type": "text/xml",
                "length": len(xml),
                "url": f"https://hq.example/a/{domain}/api/form_attachment/v1/{form.id}/form.xml",
            }
        },
        "build_id": form.app_id and form.app_id[::-1],
        "domain": domain,
        "edited_by_user_id": form.user_id if form.edited_on else None,
        "edited_on": edited_on,
        "form": tree,
        "id": form.id,
        "indexed_on": server_time,
        "initial_processing_complete": True,
        "is_phone_submission": True,
        "metadata": {
            **{key: value for key, value in tree["meta"].items() if key != "@xmlns"},
            "deprecatedID": None,
            "geo_point": None,
            "location": None,
            "timeEnd": _naive(form.ended_on),
            "timeStart": _naive(form.started_on),
        },
        "problem": None,
        "received_on": from_datetime(form.received_on),
        "resource_uri": "",
        "server_modified_on": server_time,
        "submit_ip": "192.0.2.1",
        "type": "data",
        "uiversion": "1",
        "version": "18",
    }


def form_json(form: Form, domain: str) -> bytes:
    return encoded(form_object(form, domain))


def form_xml(form: Form) -> bytes:
    """Return the form as a device submitted it: times with the device's offset (§6.1)."""
    zone = timezone(timedelta(minutes=form.device_offset))

    def device_time(time: datetime) -> str:
        return time.astimezone(zone).isoformat(timespec="milliseconds")

    return b"<?xml version='1.0' ?>" + _xml(_element("data", _form_tree(form, device_time)))


def form_stub(form: Form) -> bytes:
    received_on = from_datetime(form.received_on)
    return encoded({"received_on": received_on, "form_id": form.id, "case_ids": form.case_ids})


def _naive(time: datetime) -> str:
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def _form_tree(form: Form, time: Callable[[datetime], str]) -> dict[str, Json]:
    """Return a form's content; the blocks of a registration sit in repeats of the members."""
    blocks = [_block_tree(block, time) for block in form.blocks]
    return {
        "#type": "data",
        "@name": form.name,
        "@uiVersion": "1",
        "@version": "18",
        "@xmlns": FORM_XMLNS + form.name.replace(" ", "-"),
        "remarks": "",
        **_repeat("case", blocks[:1]),
        **_repeat("member", [{"case": block} for block in blocks[1:]]),
        "meta": {
            "@xmlns": META_XMLNS,
            "deviceID": "SIMULATED",
            "timeStart": time(form.started_on),
            "timeEnd": time(form.ended_on),
            "username": form.username,
            "userID": form.user_id,
            "instanceID": form.id,
            "appVersion": "Casewire simulation 1",
        },
    }


def _repeat(name: str, items: Sequence[Json]) -> dict[str, Json]:
    """Return what HQ makes of elements of one name: nothing, the only one, or a list."""
    return {name: items[0] if len(items) == 1 else list(items)} if items else {}


def _block_tree(block: Block, time: Callable[[datetime], str]) -> dict[str, Json]:
    tree: dict[str, Json] = {
        "@case_id": block.case_id,
        "@date_modified": time(block.date_modified),
        "@user_id": block.user_id,
        "@xmlns": CASE_XMLNS,
    }
    if block.create:
        tree["create"] = dict(block.create)
    if block.update:
        tree["update"] = dict(block.update)
    if block.close:
        tree["close"] = ""
    if block.index:
        tree["index"] = {name: _index_tree(index) for name, index in block.index.items()}
    return tree


def _index_tree(index: Index) -> dict[str, str]:
    tree = {"@case_type": index.case_type}
    if index.relationship == "extension":
        tree["@relationship"] = index.relationship
    if index.case_id:
        tree["#text"] = index.case_id
    return tree


def _element(tag: str, tree: Mapping[str, Json] | str) -> ET.Element:
    element = ET.Element(tag)
    if isinstance(tree, str):
        element.text = tree
        return element
    for key, value in tree.items():
        if key.startswith("@"):
            element.set(key[1:], value)
        elif key == "#text":
            element.text = value
        elif not key.startswith("#"):
            element.extend(
                _element(key, item) for item in (value if isinstance(value, list) else [value])
            )
    return element


def user_json(user: User, domain: str) -> bytes:
    return encoded(
        {
            "id": user.id,
            "username": f"{user.name}@{domain}.commcarehq.org",
            "first_name": "",
            "last_name": "",
            "default_phone_number": None,
            "user_data": {"commcare_project": domain, "commcare_profile": ""},
            "groups": [],
            "phone_numbers": [],
            "email": "",
            "eulas": "[]",
            "resource_uri": f"/a/{domain}/api/user/v1/{user.id}/",
            "locations": [],
            "primary_location": None,
        }
    )


def location_json(location: Location, domain: str) -> bytes:
    return encoded(
        {
            "_id": location.id,
            "doc_type": "Location",
            "domain": domain,
            "external_id": None,
            "is_archived": False,
            "archived_on": None,
            "last_modified": location.modified_on.replace(tzinfo=None).isoformat(),
            "latitude": None,
            "lineage": [],
            "location_id": location.id,
            "location_type": "village",
            "location_type_code": "village",
            "longitude": None,
            "metadata": {},
            "name": location.name,
            "parent_location_id": None,
            "site_code": location.name,
        }
    )


def data_source_json(data_source_id: str, case: Case) -> bytes:
    row = {
        "doc_id": case.case_id,
        "inserted_at": from_datetime(case.server_modified_on),
        "forms": str(len(case.xform_ids)),
    }
    return encoded(
        {
            "data_source_id": data_source_id,
            "doc_id": "",
            "doc_ids": [case.case_id],
            "data": [row],
        }
    )
