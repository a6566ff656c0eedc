"""From a captured record to the typed records that follow from it. Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec

from schemas.case_change import CaseChange, case_changes
from schemas.claim import CLAIM, Claim
from schemas.envelope import Captured, derived_headers
from schemas.form import FormEvent
from schemas.parse import REFERRED_XMLNS, Destination, destination, key, parse, subject
from streams.records import Out, Record, followed, header
from streams.sizes import fitting

STAGE: Final = "decode"
CASE_CHANGES: Final = Destination("case-changes", "org.commcare.case.changed", "case-change/1")


class Decoded(msgspec.Struct, frozen=True):
    """A typed record and the (short) name of its topic; `changes` are those of a form's blocks."""

    topic: str
    out: Out
    changes: Sequence[Out] = ()

    def followed(self, traceparent: bytes) -> "Decoded":
        """Return the same, going on with a trace unless its context is empty."""
        if not traceparent:
            return self
        changes = [followed(change, traceparent) for change in self.changes]
        return Decoded(self.topic, followed(self.out, traceparent), changes)


def claim_of(record: Record) -> Claim | None:
    """Return the claim of a record whose body lies in pieces elsewhere, None if it has its body.

    Raises InvalidEventError if the claim is malformed.
    """
    claim = header(record.headers, CLAIM) if record.value is None else None
    return Claim.parse(claim) if claim is not None else None


def decode(record: Record, body: bytes | None = None) -> Decoded:
    """Raise InvalidEventError if nothing typed can be made of the record.

    `body` is the claimed one of a record that has none itself. A form's event is its capture's
    number 0, and its case blocks are 1 to n; a form between two projects is about no case of ours.
    """
    captured = Captured.from_record(record.value if body is None else body, record.headers)
    event = parse(captured)
    to = destination(event)
    about = subject(event, captured)
    out = _out(captured, 0, to, about, (key(event, captured), event.to_json()))
    if not isinstance(event, FormEvent) or event.xmlns in REFERRED_XMLNS:
        return Decoded(to.topic, out)
    return Decoded(to.topic, out, [_change(captured, change) for change in case_changes(event)])


def _change(captured: Captured, change: CaseChange) -> Out:
    record = (f"{change.domain}/{change.case_id}", change.to_json())
    return _out(captured, change.ordinal, CASE_CHANGES, change.case_id, record)


def _out(
    captured: Captured, ordinal: int, to: Destination, about: str, record: tuple[str, bytes]
) -> Out:
    """Return the record for a key and a value; InvalidEventError if its topic cannot take it."""
    headers = derived_headers(
        captured.headers,
        event_id=f"{captured.id}/{STAGE}/{ordinal}",
        captured_id=captured.id,
        event_type=to.ce_type,
        subject=about,
        schema=to.schema,
    )
    return fitting(Out(record[0].encode(), record[1], headers), to.topic)
