"""A case's story: its events in the order of their capture, and what each made of its state. Pure.

The order of capture, not that in which a worker came to process them: snapshots and case blocks lie
on two topics, and no record tells how a worker took turns between them. So the answer for a moment
depends on nothing but what was captured until then, and never changes afterwards.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from schemas.case import CaseEvent, CaseState
from schemas.case_change import CaseChange
from schemas.values import Json
from streams.compact import Outcome
from streams.records import Record, captured_id, header
from streams.settings import StreamsSettings
from streams.state import CaseJudge, case_judge, change_judge

Kind: TypeAlias = Literal["snapshot", "block"]
Ending: TypeAlias = Outcome | Literal["dead"]

#: Of a state, besides its properties and indices, what is worth telling when it changes.
_TOLD: Final = ("closed", "date_closed", "user_id", "deleted", "doubtful", "source")


@dataclass(frozen=True, slots=True)
class Judges:
    """What judges snapshots, and what judges the case blocks of forms."""

    snapshot: CaseJudge
    block: CaseJudge

    @classmethod
    def of(cls, settings: StreamsSettings) -> "Judges":
        """Return the judges of a worker with these settings; what they make is not published."""
        window = settings.doubt_window_seconds * 1_000_000
        return cls(
            case_judge(writer="", window_microseconds=window),
            change_judge(writer="", window_microseconds=window),
        )


@dataclass(frozen=True, slots=True)
class Event:
    """A snapshot, or a case block of a form. `captured_at` is canonical, empty if nobody knows."""

    id: str
    captured_id: str
    captured_at: str
    kind: Kind
    record: Record

    @classmethod
    def of(cls, record: Record, kind: Kind) -> "Event":
        source = captured_id(record)
        return cls(
            id=header(record.headers, "ce_id") or source,
            captured_id=source,
            captured_at=header(record.headers, "ce_time") or "",
            kind=kind,
            record=record,
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """What a state says otherwise than the one before; None stands for nothing said."""

    name: str
    old: Json
    new: Json


@dataclass(frozen=True, slots=True)
class Step:
    """An event and what became of it; `state` is the one after it, None if there was none yet.

    `outcome` is None where the records before it, which it was judged by, are not kept any more;
    `first` where it is the first that is known again.
    """

    event: Event
    outcome: Ending | None
    before: bytes | None = None
    state: bytes | None = None
    first: bool = False

    def form_ids(self) -> Sequence[str]:
        """Return the forms that the event tells of: a block's, or those new in a snapshot."""
        value = self.event.record.value or b""
        try:
            if self.event.kind == "block":
                return [CaseChange.from_json(value).form_id]
            told = CaseEvent.from_json(value).xform_ids or ()
        except (TypeError, ValueError):
            return []
        held = CaseState.from_json(self.before).xform_ids if self.before is not None else ()
        known = set(held or ())
        return [form_id for form_id in told if form_id not in known]

    def differences(self) -> Sequence[Difference] | None:
        """Return what the event changed; None where the state before is not known."""
        if self.outcome is None or self.first:
            return None
        if self.before == self.state:
            return []
        old, new = _said(self.before), _said(self.state)
        return [
            Difference(name, old.get(name), new.get(name))
            for name in dict.fromkeys([*old, *new])
            if old.get(name) != new.get(name)
        ]


def in_order(events: Iterable[Event]) -> list[Event]:
    """Return events in the order of their capture; one that was written twice counts once."""
    return sorted({event.id: event for event in events}.values(), key=_order)


def _order(event: Event) -> tuple[str, int]:
    ordinal = event.id.rpartition("/")[2]
    return event.captured_id, int(ordinal) if ordinal.isdecimal() else 0


def first_certain(events: Sequence[Event], kept_since: str | None) -> int | None:
    """Return after which event the state is certain: -1 if it always is, None if it never is.

    `kept_since` (canonical) is when the oldest records that are kept were written, None if nothing
    was ever dropped. What was dropped was captured before, so HQ's times in it are earlier: the
    first snapshot whose own time is not decides against all of it, and replaces the state whole.
    """
    if kept_since is None:
        return -1
    for number, event in enumerate(events):
        if event.kind == "snapshot" and (_server_time(event) or "") >= kept_since:
            return number
    return None


def _server_time(event: Event) -> str | None:
    try:
        return CaseEvent.from_json(event.record.value or b"").server_date_modified
    except (TypeError, ValueError):
        return None


def steps(events: Iterable[Event], judges: Judges, certain: int | None) -> Iterator[Step]:
    """Yield what became of each event, given in the order of capture; see `first_certain`."""
    state: bytes | None = None
    fold: bytes | None = None
    for number, event in enumerate(events):
        judge = judges.snapshot if event.kind == "snapshot" else judges.block
        before = state
        outcome: Ending = "dead"
        with contextlib.suppress(Exception):  # whatever it is, the keeper made a dead letter of it
            judged = judge(event.record, state, fold)
            outcome = judged.outcome
            if judged.publish is not None:
                state = judged.publish.value
            if judged.fold is not None:
                fold = judged.fold.value
        if certain is None or number < certain:
            yield Step(event, None)
        else:
            first = number == certain
            yield Step(event, outcome, None if first else before, state, first)


def _said(value: bytes | None) -> Mapping[str, Json]:
    if value is None:
        return {}
    state = CaseState.from_json(value)
    return {
        **{f"properties.{name}": said for name, said in state.properties.items()},
        **{f"indices.{name}": index["case_id"] for name, index in (state.indices or {}).items()},
        **{name: getattr(state, name) for name in _TOLD},
    }
