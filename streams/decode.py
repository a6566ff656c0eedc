"""From a captured record to the typed record that follows from it. Pure."""

from dataclasses import dataclass
from typing import Final

from schemas.claim import CLAIM, Claim
from schemas.envelope import Captured, derived_headers
from schemas.errors import InvalidEventError
from schemas.parse import destination, key, parse, subject
from schemas.topics import TOPICS
from streams.batches import Out
from streams.records import Record, header

STAGE: Final = "decode"
#: What a record batch, and what later stages add to a record, may take besides.
BATCH_OVERHEAD_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Decoded:
    """A typed record and the (short) name of its topic."""

    topic: str
    out: Out


def claim_of(record: Record) -> Claim | None:
    """Return the claim of a record whose body lies in pieces elsewhere, None if it has its body.

    Raises InvalidEventError if the claim is malformed.
    """
    claim = header(record.headers, CLAIM) if record.value is None else None
    return Claim.parse(claim) if claim is not None else None


def decode(record: Record, body: bytes | None = None) -> Decoded:
    """Raise InvalidEventError if nothing typed can be made of the record.

    `body` is the claimed one of a record that has none itself.
    """
    captured = Captured.from_record(record.value if body is None else body, record.headers)
    event = parse(captured)
    to = destination(event)
    headers = derived_headers(
        record.headers,
        event_id=f"{captured.id}/{STAGE}/0",
        captured_id=captured.id,
        event_type=to.ce_type,
        subject=subject(event, captured),
        schema=to.schema,
    )
    out = Out(key(event, captured).encode(), event.to_json(), headers)
    if record_bytes(out) > TOPICS[to.topic].max_message_bytes:
        raise InvalidEventError("too_large", "the typed event is too large for one record")
    return Decoded(to.topic, out)


def record_bytes(out: Out) -> int:
    """Return at most how many bytes of a record batch a record takes alone."""
    headers = sum(len(name) + len(value) + 10 for name, value in out.headers)
    return BATCH_OVERHEAD_BYTES + len(out.key) + len(out.value or b"") + headers
