"""Records as they are read, and what all stages make of their headers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID

from schemas.envelope import REQUEST_ID, Headers, told_request_id
from schemas.times import from_microseconds
from schemas.tracing import continued


class Record(Protocol):
    """A record as aiokafka's consumer gives it."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Stored:
    """A record with all that it has on a topic, from wherever it was kept."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int = 0
    offset: int = 0


class Out(NamedTuple):
    """A record to send."""

    key: bytes
    value: bytes | None
    headers: Headers


def followed(out: Out, traceparent: bytes) -> Out:
    """Return a record that goes on with another trace context."""
    return Out(out.key, out.value, continued(out.headers, traceparent))


def header(headers: Headers, name: str) -> str | None:
    """Return the first header of that name, None if there is none or it is not UTF-8."""
    for key, value in headers:
        if key == name:
            try:
                return value.decode()
            except UnicodeDecodeError:
                return None
    return None


def captured_id(record: Record) -> str:
    """Return the id of the captured event that a record comes from.

    A record that nothing of ours wrote has none: where it lies stands for it.
    """
    found = header(record.headers, "casewire-captured-id") or header(record.headers, "ce_id")
    return found or f"{record.topic}/{record.partition}/{record.offset}"


def about(record: Record) -> dict[str, str | int]:
    """Return what log lines say of a record: where it is, and from which request it came.

    A request id that is none by its looks is left out: a sender may have written anything there.
    """
    found: dict[str, str | int] = {
        "event_id": captured_id(record),
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
    }
    if domain := header(record.headers, "casewire-domain"):
        found["domain"] = domain
    if request_id := told_request_id(dict(reversed(record.headers)).get(REQUEST_ID)):
        found["request_id"] = request_id
    return found


def time_of_id(captured_id: str) -> str:
    """Return when an event was captured, by its id, a microsecond early at most.

    It is a UUIDv7 with 12 bits of a millisecond's fraction (RFC 9562 §6.2, method 3).
    """
    try:
        number = UUID(captured_id).int
    except ValueError:
        return from_microseconds(0)
    return from_microseconds((number >> 80) * 1000 + ((number >> 64 & 0xFFF) * 1000 >> 12))
