"""Forms as XML, made into what HQ's own JSON says of them (protocol.md §6.1, §6.2)."""

from typing import Final

from lxml import etree

from schemas.envelope import Captured
from schemas.fields import identifier, ordering_time
from schemas.form import FormEvent
from schemas.form_fields import (
    METADATA_TIMES,
    RECEIVED_ON,
    make_case_times_canonical,
    make_times_canonical,
)
from schemas.markup import split_tag, text_of, to_json
from schemas.values import Json

#: Older clients' names in `meta` (`scrub_form_meta` in HQ's form_processor/utils/metadata.py).
_LEGACY_NAMES: Final = {
    "TimeStart": "timeStart",
    "TimeEnd": "timeEnd",
    "chw_id": "userID",
    "DeviceID": "deviceID",
    "uid": "instanceID",
}
#: What HQ's JSON always has in `metadata`, null if the form does not say it.
_METADATA: Final = (
    "deviceID",
    "timeStart",
    "timeEnd",
    "username",
    "userID",
    "instanceID",
    "appVersion",
    "location",
)
_TEXTS: Final = ("appVersion", "location")


def form_from_xml(root: etree._Element, captured: Captured) -> FormEvent:
    """Read a form; InvalidEventError `missing_id` if its `meta` has no id."""
    sent = to_json(root)
    form: dict[str, Json] = sent if isinstance(sent, dict) else {}
    meta = _take_meta(form)
    form_id = identifier(text_of(meta.get("uid") or meta.get("instanceID")), "meta.instanceID")
    meta = _modern(meta)
    form["#type"] = split_tag(root.tag)[1]
    form["meta"] = meta
    make_case_times_canonical(form)
    extra: dict[str, Json] = {}
    return FormEvent(
        id=form_id,
        domain=captured.domain,
        form=form,
        metadata=_metadata(meta),
        type=form["#type"],
        version=form.get("@version"),
        uiversion=form.get("@uiVersion"),
        received_on=ordering_time("received_on", {}, extra, captured, RECEIVED_ON),
        app_id=captured.app_id,
        extra=extra,
    )


def _take_meta(form: dict[str, Json]) -> dict[str, Json]:
    """Return the form's meta block as HQ chooses it: `Meta` before `meta`, the first of several."""
    meta = form.pop("Meta", None) or form.get("meta")
    if isinstance(meta, list):
        meta = meta[0]
    return meta if isinstance(meta, dict) else {}


def _modern(meta: dict[str, Json]) -> dict[str, Json]:
    """Return a meta block under today's names, with plain texts where HQ's JSON has them."""
    modern: dict[str, Json] = {}
    for name, value in meta.items():
        new_name = _LEGACY_NAMES.get(name, name)
        modern[name if new_name in meta else new_name] = value
    for name in _TEXTS:
        if name in modern:
            modern[name] = text_of(modern[name])
    return modern


def _metadata(meta: dict[str, Json]) -> dict[str, Json]:
    metadata: dict[str, Json] = dict.fromkeys(_METADATA)
    metadata |= {name: text_of(value) for name, value in meta.items() if name[0] != "@"}
    make_times_canonical(METADATA_TIMES, metadata)
    return metadata
