"""What forms in JSON and in XML have in common."""

from collections.abc import Mapping
from typing import Final

from schemas.fields import time_or_null
from schemas.form import FormEvent, FormState
from schemas.values import Json

KNOWN: Final = frozenset(FormEvent.names())
#: What a state adds: a key of that name that was sent means something else.
RESERVED: Final = frozenset(FormState.names()) - KNOWN
RECEIVED_ON: Final = "received-on"
METADATA_TIMES: Final = ("timeStart", "timeEnd")

CASE: Final = "case"
DATE_MODIFIED: Final = "@date_modified"


def make_times_canonical(names: tuple[str, ...], value: dict[str, Json]) -> None:
    """Replace the times of those names in `value`, the sent text beside those sent otherwise."""
    for name in names:
        if name in value:
            value[name] = time_or_null(name, value, value)


def make_case_times_canonical(form: dict[str, Json]) -> None:
    """Replace `@date_modified` of every case block of version 2 inside `form`."""
    for block in case_blocks(form):
        if "@case_id" in block:
            make_times_canonical((DATE_MODIFIED,), block)


def case_blocks(form: Mapping[str, Json]) -> list[dict[str, Json]]:
    """Return the case blocks at whatever depth inside `form`, in the order in which HQ reads them.

    HQ (`_extract_case_blocks` in casexml/apps/case/xform.py) walks the form's JSON, also of a form
    that came as XML: key by key, a list item by item. So elements of one name follow each other
    where the first of them stands. A case block is the value of a key `case`, or each item of that
    list, if it has a case id; nothing inside one is looked at.
    """
    found: list[dict[str, Json]] = []
    _find_case_blocks(form, found)
    return found


def _find_case_blocks(node: Mapping[str, Json], found: list[dict[str, Json]]) -> None:
    for name, value in node.items():
        if isinstance(value, str):
            continue
        for item in value if isinstance(value, list) else (value,):
            if not isinstance(item, dict):
                continue
            if name != CASE:
                _find_case_blocks(item, found)
            elif "@case_id" in item or "case_id" in item:
                found.append(item)
