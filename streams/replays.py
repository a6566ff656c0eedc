"""What is to be processed again: the records on `casewire.replays` (contract §4). Pure.

Such a record is the one that was processed before, headers and all, but for three headers: where it
is to go (`casewire-target`), that it is a replay (`casewire-origin`), and which attempt it is if it
was a dead letter (`casewire-attempts`).
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from schemas.errors import Rejection
from schemas.times import to_microseconds
from schemas.topics import DAY_MS
from streams.records import Out, Record, captured_id, header, time_of_id

REPLAYS: Final = "replays"
TARGET: Final = "casewire-target"
ATTEMPTS: Final = "casewire-attempts"
ORIGIN: Final = "casewire-origin"
#: By the name of a value's schema: the (short) topic that it belongs on.
_TOPICS: Final[Mapping[str, str]] = {
    "case": "cases",
    "case-change": "case-changes",
    "form": "forms",
    "user": "users",
    "location": "locations",
    "case-state": "case-state",
    "form-state": "form-state",
}
_JUDGED: Final = frozenset({"cases", "case-changes", "forms", "users", "locations"})

R = TypeVar("R", bound=Record)


def is_replay(record: Record) -> bool:
    """Whether a record was read from `replays`."""
    return record.topic.endswith(REPLAYS)


def aimed_at(stage: str, records: Sequence[R]) -> Sequence[R]:
    """Return those of the records on `replays` that are for a stage."""
    return [record for record in records if header(record.headers, TARGET) == stage]


def topic_of(record: Record) -> str:
    """Return the (short) topic that a record on `replays` belongs on, empty if it does not say."""
    schema = header(record.headers, "casewire-schema") or ""
    return _TOPICS.get(schema.partition("/")[0], "")


def attempts_of(record: Record) -> int:
    """Return which attempt it is to process a record: more than 1 if it was a dead letter."""
    told = header(record.headers, ATTEMPTS) or ""
    return int(told) if told.isdecimal() else 1


def earliest_ms(record: Record) -> int:
    """Return a time before which no part of a replayed event's body was appended.

    It was captured by the clock of an ingress; that a clock is wrong by a day is allowed for.
    """
    captured_ms = to_microseconds(time_of_id(captured_id(record))) // 1000
    return max(0, captured_ms - DAY_MS)


def again(record: Record, key: bytes, target: str, attempts: int = 1) -> Out:
    """Return the record for `replays`; `attempts` is more than 1 if it was a dead letter."""
    headers = [item for item in record.headers if item[0] not in (TARGET, ORIGIN, ATTEMPTS)]
    headers += [(TARGET, target.encode()), (ORIGIN, b"replay")]
    if attempts > 1:
        headers.append((ATTEMPTS, str(attempts).encode()))
    return Out(key, record.value, headers)


def typed_again(
    records: Sequence[Record],
) -> tuple[Mapping[str, Sequence[Out]], Sequence[tuple[Record, Rejection]]]:
    """Return typed events by the (short) topic that each is to go to, and what is none."""
    typed: dict[str, list[Out]] = {}
    failed: list[tuple[Record, Rejection]] = []
    for record in records:
        topic = topic_of(record)
        if topic in _JUDGED:
            headers = [item for item in record.headers if item[0] != TARGET]
            typed.setdefault(topic, []).append(Out(record.key or b"", record.value, headers))
        else:
            failed.append((record, _NOTHING_TO_JUDGE))
    return typed, failed


_NOTHING_TO_JUDGE: Final = Rejection(
    "invalid_field", "this is nothing that has a latest state", path="headers.casewire-schema"
)
