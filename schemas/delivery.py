"""What became of events: the ledger on `casewire.deliveries`.

A batch is one record with how many of its events ended how; an event that was not written has a
record of its own besides. So what was written is: all offsets of the batches, less those records.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.values import Json, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDelivery(Value):
    """`counts` by end state; for `state`: applied, stale, duplicate, dead. Offsets inclusive."""

    stage: str
    topic: str
    partition: int
    first_offset: int
    last_offset: int
    counts: Mapping[str, int]
    extra: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDelivery(Value):
    """The end state of an event that was not written. `event_id` is its `ce_id`."""

    stage: str
    topic: str
    partition: int
    offset: int
    event_id: str
    outcome: str
    extra: dict[str, Json] = field(default_factory=dict)
