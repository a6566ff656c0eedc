"""Dead letters as records: the original with all that is needed to repair and replay it."""

from base64 import b64encode
from typing import Final

from schemas.dead_letter import DeadLetter, Original
from schemas.envelope import derived_headers
from schemas.errors import InvalidEventError, Rejection
from schemas.topics import MEBIBYTE
from streams.records import Out, Record, captured_id, header
from streams.replays import attempts_of

EVENT_TYPE: Final = "casewire.dead-letter"
SCHEMA: Final = "dead-letter/1"
LARGEST_KEPT_VALUE: Final = MEBIBYTE
#: A path may hold names that were sent, and a target may quote what was written to it.
LONGEST_PATH: Final = 500
LONGEST_TARGET_ERROR: Final = 10_000


def rejection_of(error: Exception) -> Rejection:
    """Return why a record failed, from the error that said so; one not foreseen names its class."""
    if isinstance(error, InvalidEventError):
        return Rejection(error.cause, error.explanation, path=error.path)
    return Rejection("unexpected", f"Casewire failed on it with {type(error).__name__}")


def dead_letter(record: Record, stage: str, rejection: Rejection, *, failed_at: str) -> Out:
    """Return the record for `casewire.dead-letters`; `failed_at` is a canonical time."""
    source = captured_id(record)
    letter = DeadLetter(
        captured_id=source,
        domain=header(record.headers, "casewire-domain") or "",
        stage=stage,
        cause=rejection.cause,
        retryable=rejection.cause == "unexpected",
        explanation=rejection.explanation,
        path=rejection.path[:LONGEST_PATH],
        attempts=attempts_of(record),
        failed_at=failed_at,
        target_error=rejection.target_error[:LONGEST_TARGET_ERROR],
        original=_original(record),
    )
    headers = derived_headers(
        record.headers,
        event_id=f"{source}/{stage}/{_ordinal(record)}",
        captured_id=source,
        event_type=EVENT_TYPE,
        subject=header(record.headers, "ce_subject") or source,
        schema=SCHEMA,
    )
    return Out(source.encode(), letter.to_json(), headers)


def _ordinal(record: Record) -> str:
    """Return which of its captured event's records this is, as its own id says."""
    ordinal = (header(record.headers, "ce_id") or "").rpartition("/")[2]
    return ordinal if ordinal.isdecimal() else "0"


def _original(record: Record) -> Original:
    value = record.value
    kept = value is not None and len(value) <= LARGEST_KEPT_VALUE
    return Original(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=None if record.key is None else b64encode(record.key).decode(),
        value=b64encode(value).decode() if kept and value is not None else None,
        value_bytes=len(value or b""),
        headers=[(name, b64encode(text).decode()) for name, text in record.headers],
    )
