"""Which version of a case or a form is newest: contract §5, and nothing else.

Pure: the same held state and event always give the same verdict, also when the event is read a
second time after a crash.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Generic, Literal, TypeAlias, TypeVar

import msgspec
from msgspec.structs import asdict, replace

from schemas.case import CaseEvent, CaseState
from schemas.form import FormEvent, FormState
from schemas.others import LocationEvent, LocationState, UserEvent, UserState
from schemas.times import to_microseconds
from streams.evidence import Received, newest

Outcome: TypeAlias = Literal["applied", "stale", "duplicate"]
S = TypeVar("S", CaseState, FormState, UserState, LocationState)
SavedState = TypeVar("SavedState", UserState, LocationState)


class Capture(msgspec.Struct, frozen=True):
    """Which captured event is judged: its id (UUIDv7, decides what came later) and its time."""

    id: str
    microseconds: int


@dataclass(frozen=True, slots=True)
class Verdict(Generic[S]):
    """`state` is what to publish, None if nothing. `doubtful`: the witnesses disagree (rule 2).

    `rival` is what might be newer then.
    """

    outcome: Outcome
    state: S | None = None
    doubtful: bool = False
    rival: S | None = None


@dataclass(frozen=True, slots=True)
class _Order:
    newer: bool
    doubtful: bool = False


def latest_case(
    held: CaseState | None,
    event: CaseEvent,
    capture: Capture,
    *,
    window_microseconds: int,
    received: Received = MappingProxyType({}),
) -> Verdict[CaseState]:
    """Judge a snapshot against the state that is held.

    `received` says when HQ received forms of the case, as far as it is known: where that proves
    which snapshot is newer, nothing is doubtful.

    A state that was made of forms gives way to the first snapshot, whatever its time. A stale
    snapshot that makes the order doubtful publishes the held state, marked: the mark does not
    depend on which of the two came first.
    """
    version = capture.microseconds
    if held is None:
        return Verdict("applied", _state(event, None, capture, version=version, doubtful=False))
    if held.captured_id == capture.id:
        return Verdict("applied")
    version = max(held.version + 1, version)
    state = _state(event, held, capture, version=version, doubtful=False)
    if held.source == "forms":
        return Verdict("applied", state)
    if same_content(state, held) or _poorer_copy(held, event):
        return Verdict("duplicate")
    order = _order(held, event, capture, window_microseconds)
    if order.doubtful:
        order = _proven(held, event, received) or order
    return _in_order(held, state, order)


def _in_order(held: CaseState, state: CaseState, order: _Order) -> Verdict[CaseState]:
    if order.newer:
        published = replace(state, doubtful=order.doubtful)
        return Verdict("applied", published, order.doubtful, held if order.doubtful else None)
    if not order.doubtful:
        return Verdict("stale")
    marked = replace(held, version=held.version + 1, doubtful=True)
    return Verdict("stale", None if held.doubtful else marked, doubtful=True, rival=state)


def _proven(held: CaseState, event: CaseEvent, received: Received) -> _Order | None:
    winner = newest([held, event], received)
    return None if winner is None else _Order(newer=winner is event)


def _order(held: CaseState, event: CaseEvent, capture: Capture, window: int) -> _Order:
    captured_later = capture.id > held.captured_id
    old, new = held.server_date_modified, event.server_date_modified
    if old is None or new is None:
        return _Order(captured_later if old == new else old is None)
    if old == new:
        return _order_at_equal_times(held, event, captured_later)
    if abs(to_microseconds(new) - to_microseconds(old)) < window:
        earlier, later = (held, event) if old < new else (event, held)
        if _contains(earlier, later):
            return _Order(captured_later, doubtful=True)
    return _Order(new > old)


def _order_at_equal_times(held: CaseState, event: CaseEvent, captured_later: bool) -> _Order:  # noqa: FBT001
    if held.xform_ids is None and event.xform_ids is not None:
        return _Order(newer=True)
    if held.deleted != event.gone:
        return _Order(captured_later, doubtful=True)
    if _contains(event, held):
        return _Order(newer=True)
    if _contains(held, event):
        return _Order(newer=False)
    return _Order(captured_later)


def _contains(one: CaseEvent, other: CaseEvent) -> bool:
    return knows_more(one.xform_ids, other.xform_ids)


def knows_more(one: Sequence[str] | None, other: Sequence[str] | None) -> bool:
    """Whether `one` has all forms of `other` and more. XML says of none (None): False."""
    return one is not None and other is not None and set(one) > set(other)


def _poorer_copy(held: CaseState, event: CaseEvent) -> bool:
    """Whether the event is XML of the time of the held JSON."""
    same_time = event.server_date_modified == held.server_date_modified is not None
    return same_time and event.xform_ids is None and held.xform_ids is not None


def same_content(one: CaseState, other: CaseState) -> bool:
    """Whether two states say the same of the case, whichever events they came from."""
    return _content(one) == _content(other)


_content = attrgetter(*CaseEvent.names(), "extra", "source", "deleted")


def _state(
    event: CaseEvent, held: CaseState | None, capture: Capture, *, version: int, doubtful: bool
) -> CaseState:
    fields = asdict(event)
    if event.gone and not event.case_type and held is not None and held.case_type:
        # HQ blanks the case. Its type says where it was written, and so where it must go from.
        fields["properties"] = {**event.properties, "case_type": held.case_type}
    return CaseState(
        **fields,
        source="snapshot",
        version=version,
        captured_id=capture.id,
        deleted=event.gone,
        doubtful=doubtful,
    )


def latest_form(held: FormState | None, event: FormEvent, capture: Capture) -> Verdict[FormState]:
    """Judge a version of a form: the later `server_modified_on`, then `edited_on`, then captured.

    Where one of them has no `server_modified_on` (XML) the later captured is newer.
    """
    version = capture.microseconds
    if held is not None:
        if held.captured_id == capture.id:
            return Verdict("applied")
        if _form(event) == _form(held):
            return Verdict("duplicate")
        if not _newer_form(held, event, capture):
            return Verdict("stale")
        version = max(held.state_version + 1, version)
    state = FormState(**asdict(event), state_version=version, captured_id=capture.id)
    return Verdict("applied", state)


_form = attrgetter(*FormEvent.names(), "extra")


def _newer_form(held: FormState, event: FormEvent, capture: Capture) -> bool:
    old, new = held.server_modified_on, event.server_modified_on
    if old is None or new is None:
        return capture.id > held.captured_id
    new_order = (new, event.edited_on or "", capture.id)
    return new_order > (old, held.edited_on or "", held.captured_id)


def latest_saved(
    kind: type[SavedState],
    held: SavedState | None,
    event: UserEvent | LocationEvent,
    capture: Capture,
) -> Verdict[SavedState]:
    """Judge a mobile worker or a location as saved: the later captured is newer.

    HQ sends no time of it, and what is current when it sends.
    """
    known = asdict(event)
    version = capture.microseconds
    if held is not None:
        if held.captured_id == capture.id:
            return Verdict("applied")
        if all(value == getattr(held, name) for name, value in known.items()):
            return Verdict("duplicate")
        if capture.id < held.captured_id:
            return Verdict("stale")
        version = max(held.version + 1, version)
    return Verdict("applied", kind(**known, version=version, captured_id=capture.id))
