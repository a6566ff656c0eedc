"""From an event and the state that is held, to the state to publish. Pure."""

from collections.abc import Callable
from functools import partial
from typing import Final, Literal, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from schemas.case import CaseEvent, CaseState
from schemas.case_change import CaseChange
from schemas.envelope import derived_headers
from schemas.errors import InvalidEventError
from schemas.form import FormEvent, FormState
from schemas.others import LocationEvent, LocationState, UserEvent, UserState
from schemas.times import canonical, to_microseconds
from schemas.values import Value
from streams.compact import (
    Capture,
    Outcome,
    SavedState,
    Verdict,
    latest_case,
    latest_form,
    latest_saved,
)
from streams.fold import FORM, CaseFold, fold_change, unseen_forms, with_rival, without_rivals
from streams.records import Out, Record, captured_id, followed, header
from streams.shortcut import successor
from streams.sizes import fitting
from streams.tombstones import Gone

STAGE: Final = "state"
E = TypeVar("E", bound=Value)

Doubt: TypeAlias = Literal["", "order", "forms"]
"""Why a state is doubtful: the order of two snapshots, or a form that none of them knows yet."""


class Judged(msgspec.Struct, frozen=True):
    """How an event ended, the state to publish, and the fold to keep; None where there is none.

    A fold whose value is None is one to be deleted.
    """

    outcome: Outcome
    publish: Out | None
    doubtful: bool
    untimed: bool
    fold: Out | None = None

    def followed(self, traceparent: bytes) -> "Judged":
        """Return the same, going on with a trace unless its context is empty."""
        if not traceparent or self.publish is None:
            return self
        return replace(self, publish=followed(self.publish, traceparent))


Judge: TypeAlias = Callable[[Record, bytes | None], Judged]
"""From an event's record and the state that is held for its key."""


class CaseJudge(Protocol):
    """A judge that also knows what forms said of the case."""

    def __call__(self, record: Record, held: bytes | None, fold: bytes | None = None) -> Judged: ...


class _Target(msgspec.Struct, frozen=True):
    """What a state is of: its kind and id; and which of the captured event's events made it."""

    kind: str
    subject: str
    writer: str
    ordinal: int = 0
    doubt: Doubt = ""


def case_judge(*, writer: str, window_microseconds: int) -> CaseJudge:
    """Return the judge of case events; `writer` names this incarnation of the worker."""

    def judge(record: Record, held: bytes | None, fold: bytes | None = None) -> Judged:
        plain = fold is None and successor(held, record.value or b"", partial(_capture, record))
        if plain:
            target = _Target("case", plain.case_id, writer)
            publish = _state_out(record, plain.value, plain.version, target)
            return Judged("applied", publish, doubtful=False, untimed=False)
        return in_full(record, held, fold)

    def in_full(record: Record, held: bytes | None, fold: bytes | None) -> Judged:
        event = _parsed(CaseEvent, record)
        known = CaseFold.from_json(fold) if fold is not None else None
        gone = known.gone if known is not None and held is None else None
        capture = _capture(record)
        verdict = latest_case(
            _held(held, gone, event),
            event,
            capture,
            window_microseconds=window_microseconds,
            received=known.received if known is not None else {},
        )
        state = _told(verdict.state, gone)
        doubt: Doubt = "order" if verdict.doubtful else ""
        if state is not None and not state.doubtful and unseen_forms(state, known):
            state, doubt = replace(state, doubtful=True), "forms"
        target = _Target("case", event.case_id, writer, doubt=doubt)
        untimed = event.server_date_modified is None
        judged = _judged(record, verdict.outcome, state, target, untimed=untimed)
        return _with_fold(judged, record, (known, _kept(known, verdict, capture)), target)

    return judge


def _kept(fold: CaseFold | None, verdict: Verdict[CaseState], capture: Capture) -> CaseFold | None:
    """Return the fold after a snapshot: it keeps what may be newer while that is doubtful."""
    if verdict.rival is not None:
        return with_rival(fold, verdict.rival, capture)
    return without_rivals(fold) if verdict.state is not None else fold


def change_judge(*, writer: str, window_microseconds: int) -> CaseJudge:
    """Return the judge of case blocks; `writer` names this incarnation of the worker."""

    def judge(record: Record, held: bytes | None, fold: bytes | None = None) -> Judged:
        change = _parsed(CaseChange, record)
        before = CaseFold.from_json(fold) if fold is not None else None
        gone = before.gone if before is not None and held is None else None
        folded = fold_change(
            _held(held, gone, change),
            before,
            change,
            _capture(record),
            window_microseconds=window_microseconds,
        )
        state = _told(folded.state, gone)
        doubt: Doubt = "forms" if state is not None and state.doubtful else ""
        target = _Target("case", change.case_id, writer, change.ordinal, doubt)
        untimed = change.received_on is None
        judged = _judged(record, folded.outcome, state, target, untimed=untimed)
        return _with_fold(judged, record, (before, folded.fold), target)

    return judge


def _with_fold(
    judged: Judged,
    record: Record,
    folds: tuple[CaseFold | None, CaseFold | None],
    target: _Target,
) -> Judged:
    """Return the verdict with the second of two folds, if it is another one than the first."""
    before, after = folds
    if after is before:
        return judged
    return replace(judged, fold=_fold_out(record, after, before, target))


def _held(held: bytes | None, gone: Gone | None, about: CaseEvent | CaseChange) -> CaseState | None:
    """Return the state to judge by: the one that is held, or the one that has become null."""
    if held is not None:
        return CaseState.from_json(held)
    return gone.state(about.domain, about.case_id) if gone is not None else None


def _told(state: CaseState | None, gone: Gone | None) -> CaseState | None:
    """Return the state to publish. What is null stays so when the news is but a doubt about it."""
    if state is not None and gone is not None and state.captured_id == gone.captured_id:
        return None
    return state


def form_judge(*, writer: str) -> Judge:
    """Return the judge of form events; `writer` names this incarnation of the worker."""

    def judge(record: Record, held: bytes | None) -> Judged:
        event = _parsed(FormEvent, record)
        state = FormState.from_json(held) if held is not None else None
        verdict = latest_form(state, event, _capture(record))
        target = _Target("form", event.id, writer)
        untimed = event.server_modified_on is None
        return _judged(record, verdict.outcome, verdict.state, target, untimed=untimed)

    return judge


def user_judge(*, writer: str) -> Judge:
    """Return the judge of user events; `writer` names this incarnation of the worker."""
    return _saved_judge(UserEvent, UserState, "user", "id", writer)


def location_judge(*, writer: str) -> Judge:
    """Return the judge of location events; `writer` names this incarnation of the worker."""
    return _saved_judge(LocationEvent, LocationState, "location", "location_id", writer)


def _saved_judge(
    event_type: type[UserEvent | LocationEvent],
    state_type: type[SavedState],
    kind: str,
    id_field: str,
    writer: str,
) -> Judge:
    def judge(record: Record, held: bytes | None) -> Judged:
        event = _parsed(event_type, record)
        state = state_type.from_json(held) if held is not None else None
        verdict = latest_saved(state_type, state, event, _capture(record))
        target = _Target(kind, getattr(event, id_field), writer)
        return _judged(record, verdict.outcome, verdict.state, target)

    return judge


def _judged(
    record: Record,
    outcome: Outcome,
    state: CaseState | FormState | UserState | LocationState | None,
    target: _Target,
    *,
    untimed: bool = False,
) -> Judged:
    publish = None
    if state is not None:
        version = state.state_version if isinstance(state, FormState) else state.version
        publish = _state_out(record, state.to_json(), version, target)
    return Judged(outcome, publish, bool(target.doubt), untimed)


def _state_out(record: Record, value: bytes, version: int, target: _Target) -> Out:
    kind = target.kind
    headers = _headers(record, f"org.commcare.{kind}.state", f"{kind}-state/1", target, version)
    return fitting(Out(record.key or b"", value, headers), f"{kind}-state")


def _fold_out(
    record: Record, fold: CaseFold | None, before: CaseFold | None, target: _Target
) -> Out:
    """Return the record of a fold; one that deletes it has the version after that of `before`."""
    if fold is not None:
        version, value = fold.version, fold.to_json()
    else:
        version, value = (before.version + 1 if before is not None else 0), None
    headers = _headers(record, "casewire.case-fold", FORM, target, version)
    return fitting(Out(record.key or b"", value, headers), "case-folds")


def _headers(
    record: Record, event_type: str, schema: str, target: _Target, version: int
) -> list[tuple[str, bytes]]:
    source = captured_id(record)
    # The version first: recovery reads no further.
    headers = [("casewire-version", str(version).encode())]
    headers += derived_headers(
        record.headers,
        event_id=f"{source}/{STAGE}/{target.ordinal}",
        captured_id=source,
        event_type=event_type,
        subject=target.subject,
        schema=schema,
    )
    headers.append(("casewire-writer", target.writer.encode()))
    if target.doubt:
        headers.append(("casewire-doubt", target.doubt.encode()))
    return headers


def _parsed(kind: type[E], record: Record) -> E:
    try:
        return kind.from_json(record.value or b"")
    except (TypeError, ValueError) as error:
        raise InvalidEventError(
            "invalid_field", f"this is not a value that streams writes to {record.topic}"
        ) from error


def _capture(record: Record) -> Capture:
    time = canonical(header(record.headers, "ce_time") or "")
    if time is None:
        raise InvalidEventError(
            "invalid_field", "the record does not say when it was captured", path="headers.ce_time"
        )
    return Capture(captured_id(record), to_microseconds(time))
