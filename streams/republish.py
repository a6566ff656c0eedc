"""The headers of a state that is published again, made from the state itself."""

from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID

import orjson

from schemas.envelope import Headers
from schemas.times import from_microseconds

#: Of each kind of state: the field of its id, and that of its version.
_FIELDS: Final[Mapping[str, tuple[str, str]]] = {
    "case": ("case_id", "version"),
    "form": ("id", "state_version"),
    "user": ("id", "version"),
    "location": ("location_id", "version"),
}


def state_headers(kind: str, writer: str) -> Callable[[bytes, bytes], Headers]:
    """Return the function from key and value of a state to its headers.

    What only the request's own headers said (`received-on` and the like) is not known any more.
    """
    id_field, version_field = _FIELDS[kind]

    def headers_of(_key: bytes, value: bytes) -> Headers:
        state = orjson.loads(value)
        captured_id = state["captured_id"]
        texts = {
            "ce_specversion": "1.0",
            "ce_id": f"{captured_id}/state/0",
            "ce_source": f"/commcare/{state['domain']}",
            "ce_type": f"org.commcare.{kind}.state",
            "ce_time": _time_of(captured_id),
            "ce_subject": state[id_field],
            "content-type": "application/json",
            "casewire-domain": state["domain"],
            "casewire-captured-id": captured_id,
            "casewire-schema": f"{kind}-state/1",
            "casewire-version": str(state[version_field]),
            "casewire-writer": writer,
        }
        return [(name, text.encode()) for name, text in texts.items()]

    return headers_of


def _time_of(captured_id: str) -> str:
    """Return when an event was captured, by its id (UUIDv7), to the millisecond."""
    try:
        milliseconds = UUID(captured_id).int >> 80
    except ValueError:
        milliseconds = 0
    return from_microseconds(milliseconds * 1000)
