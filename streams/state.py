"""From a case or form event and the state that is held, to the state to publish. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from schemas.case import CaseEvent, CaseState
from schemas.envelope import derived_headers
from schemas.errors import InvalidEventError
from schemas.form import FormEvent, FormState
from schemas.times import canonical, to_microseconds
from streams.batches import Out
from streams.compact import Capture, Outcome, Verdict, latest_case, latest_form
from streams.records import Record, captured_id, header

STAGE: Final = "state"
E = TypeVar("E", CaseEvent, FormEvent)


@dataclass(frozen=True, slots=True)
class Judged:
    """How an event ended, and the state to publish, None if there is none."""

    outcome: Outcome
    publish: Out | None
    doubtful: bool
    untimed: bool


Judge: TypeAlias = Callable[[Record, bytes | None], Judged]
"""From an event's record and the state that is held for its key."""


def case_judge(*, writer: str, window_microseconds: int) -> Judge:
    """Return the judge of case events; `writer` names this incarnation of the worker."""

    def judge(record: Record, held: bytes | None) -> Judged:
        event = _parsed(CaseEvent, record)
        verdict = latest_case(
            CaseState.from_json(held) if held is not None else None,
            event,
            _capture(record),
            window_microseconds=window_microseconds,
        )
        version = verdict.state.version if verdict.state else 0
        untimed = event.server_date_modified is None
        return _judged(record, verdict, _Target("case", event.case_id, version, writer), untimed)

    return judge


def form_judge(*, writer: str) -> Judge:
    """Return the judge of form events; `writer` names this incarnation of the worker."""

    def judge(record: Record, held: bytes | None) -> Judged:
        event = _parsed(FormEvent, record)
        state = FormState.from_json(held) if held is not None else None
        verdict = latest_form(state, event, _capture(record))
        version = verdict.state.state_version if verdict.state else 0
        untimed = event.server_modified_on is None
        return _judged(record, verdict, _Target("form", event.id, version, writer), untimed)

    return judge


@dataclass(frozen=True, slots=True)
class _Target:
    kind: str
    subject: str
    version: int
    writer: str


def _judged(
    record: Record,
    verdict: Verdict[CaseState] | Verdict[FormState],
    target: _Target,
    untimed: bool,  # noqa: FBT001
) -> Judged:
    if verdict.state is None:
        return Judged(verdict.outcome, None, verdict.doubtful, untimed)
    source = captured_id(record)
    headers = derived_headers(
        record.headers,
        event_id=f"{source}/{STAGE}/0",
        captured_id=source,
        event_type=f"org.commcare.{target.kind}.state",
        subject=target.subject,
        schema=f"{target.kind}-state/1",
    )
    headers.append(("casewire-version", str(target.version).encode()))
    headers.append(("casewire-writer", target.writer.encode()))
    if verdict.doubtful:
        headers.append(("casewire-doubt", b"order"))
    out = Out(record.key or b"", verdict.state.to_json(), headers)
    return Judged(verdict.outcome, out, verdict.doubtful, untimed)


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
