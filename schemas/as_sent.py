"""Cases and forms as CommCare HQ sent them: the way back from what topics say (contract §4; pure).

What streams adds is left out, and what it wrote another way is as it was sent again: `x_sent`
becomes `x` (`schemas.fields`). What cannot be told any more stays: a key that was not sent is
null, an index that HQ marked as removed is not there, and XML became JSON.
"""

from collections.abc import Mapping
from typing import Final, Literal

from schemas.case_fields import KNOWN as CASE_KEYS, RESERVED as CASE_OWN
from schemas.fields import sent_name
from schemas.form_fields import (
    CASE,
    DATE_MODIFIED,
    KNOWN as FORM_KEYS,
    METADATA_TIMES,
    RESERVED as FORM_OWN,
)
from schemas.values import Json

_OWN: Final = {"case": CASE_OWN, "form": FORM_OWN}
_NAMES: Final = {"case": CASE_KEYS | CASE_OWN, "form": FORM_KEYS | FORM_OWN}


def own_values(value: Mapping[str, Json], kind: Literal["case", "form"]) -> Mapping[str, Json]:
    """Return what a state says beside what HQ sent, such as its version."""
    return {name: value[name] for name in sorted(_OWN[kind]) if name in value}


def as_sent(value: Mapping[str, Json], kind: Literal["case", "form"]) -> dict[str, Json]:
    """Return the JSON object that HQ sent, of an event or a state. `value` is left as it is."""
    sent = {name: item for name, item in value.items() if name not in _OWN[kind]}
    sent = _restored(sent, _NAMES[kind])
    if kind == "form":
        sent["form"] = _with_case_times(sent["form"])
        if isinstance(sent["metadata"], Mapping):
            sent["metadata"] = _restored(sent["metadata"], METADATA_TIMES)
    return sent


def _restored(
    value: Mapping[str, Json], names: frozenset[str] | tuple[str, ...]
) -> dict[str, Json]:
    """Return the object with what was sent of these names in the place of what was made of it."""
    restored = dict(value)
    for name in names:
        if (kept := sent_name(name)) in restored:
            restored[name] = restored.pop(kept)
    return restored


def _with_case_times(node: Mapping[str, Json]) -> dict[str, Json]:
    return {name: _inside(name, value) for name, value in node.items()}


def _inside(name: str, value: Json) -> Json:
    if isinstance(value, list):
        return [_inside(name, item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if name == CASE and "@case_id" in value:
        return _restored(value, (DATE_MODIFIED,))
    return _with_case_times(value)
