"""What forms in JSON and in XML have in common."""

from typing import Final

from schemas.fields import time_or_null
from schemas.form import FormEvent, FormState
from schemas.values import Json

KNOWN: Final = frozenset(FormEvent.names())
#: What a state adds: a key of that name that was sent means something else.
RESERVED: Final = frozenset(FormState.names()) - KNOWN
RECEIVED_ON: Final = "received-on"
METADATA_TIMES: Final = ("timeStart", "timeEnd")

_CASE: Final = "case"
_DATE_MODIFIED: Final = "@date_modified"


def make_times_canonical(names: tuple[str, ...], value: dict[str, Json]) -> None:
    """Replace the times of those names in `value`, the sent text beside those sent otherwise."""
    for name in names:
        if name in value:
            value[name] = time_or_null(name, value, value)


def make_case_times_canonical(form: dict[str, Json]) -> None:
    """Replace `@date_modified` of every case block at whatever depth inside `form`.

    A case block is found as HQ finds it: the value of a key `case`, or each item of that list,
    if it has a case id; nothing inside one is looked at.
    """
    for name, value in form.items():
        if isinstance(value, str):
            continue
        for item in value if isinstance(value, list) else (value,):
            if not isinstance(item, dict):
                continue
            if name != _CASE:
                make_case_times_canonical(item)
            elif "@case_id" in item:
                make_times_canonical((_DATE_MODIFIED,), item)
