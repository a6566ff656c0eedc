"""The short way for most snapshots: newer beyond doubt, so neither it nor the state is taken apart.

The rule is that of `streams/compact.py`, which judges all that is not so plain. What comes out is
the same, byte for byte (tests/streams/test_shortcut.py), in a third of the time.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from streams.compact import Capture, knows_more


class Successor(msgspec.Struct, frozen=True):
    """The state that follows from a snapshot; `value` is its JSON."""

    case_id: str
    version: int
    value: bytes


class _Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `CaseEvent.to_json` writes of an event without `extra`."""

    domain: str
    case_id: str
    user_id: str | None
    closed: bool
    xform_ids: Sequence[str] | None
    date_closed: str | None
    date_modified: str | None
    server_date_modified: str | None
    properties: msgspec.Raw
    indices: msgspec.Raw
    attachments: msgspec.Raw


class _Held(msgspec.Struct, frozen=True):
    """What of a state the order depends on."""

    xform_ids: Sequence[str] | None
    server_date_modified: str | None
    source: str
    version: int
    captured_id: str


class _Added(msgspec.Struct, frozen=True):
    """What a state has besides its snapshot, in order."""

    source: str
    version: int
    captured_id: str
    deleted: bool
    doubtful: bool


_read_snapshot: Final = msgspec.json.Decoder(_Snapshot).decode
_read_held: Final = msgspec.json.Decoder(_Held).decode
_write: Final = msgspec.json.Encoder().encode


def successor(
    held: bytes | None, event: bytes, captured: Callable[[], Capture]
) -> Successor | None:
    """Return the state to publish if `event` is a case's first snapshot, or newer beyond doubt.

    Newer beyond doubt: of another capture and a later time than the snapshot that is held, which
    does not know more forms. None for anything else, as for a case that is gone. There may be no
    fold. `captured` is asked of a snapshot only, and may raise.
    """
    try:
        event.decode()  # what is left raw is not checked to be UTF-8
        snapshot = _read_snapshot(event)
        state = _read_held(held) if held is not None else None
    except ValueError:
        return None
    if snapshot.server_date_modified is None or snapshot.xform_ids == []:
        return None
    capture = captured()
    version = capture.microseconds
    if state is not None:
        if not _is_older(state, snapshot.server_date_modified, capture):
            return None
        if knows_more(state.xform_ids, snapshot.xform_ids):
            return None
        version = max(state.version + 1, version)
    added = _Added("snapshot", version, capture.id, deleted=False, doubtful=False)
    return Successor(snapshot.case_id, version, event[:-1] + b"," + _write(added)[1:])


def _is_older(held: _Held, modified: str, capture: Capture) -> bool:
    if held.source != "snapshot" or held.captured_id == capture.id:
        return False
    return held.server_date_modified is not None and held.server_date_modified < modified
