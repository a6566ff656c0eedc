"""What became of events: the ledger on `casewire.deliveries`.

A batch is one record with how many of its events ended how; an event that was not written has a
record of its own besides. So what was written is: all offsets of the batches, less those records.
"""

from collections.abc import Mapping

from schemas.values import Value


class BatchDelivery(Value, frozen=True, kw_only=True):
    """`counts` by end state; for `state`: applied, stale, duplicate, dead. Offsets inclusive.

    `domains` are the same counts for each project space.
    """

    stage: str
    topic: str
    partition: int
    first_offset: int
    last_offset: int
    counts: Mapping[str, int]
    domains: Mapping[str, Mapping[str, int]] = {}


class EventDelivery(Value, frozen=True, kw_only=True):
    """The end state of an event that was not written. `event_id` is its `ce_id`.

    `version` is that of a state, 0 for what has none.
    """

    stage: str
    topic: str
    partition: int
    offset: int
    event_id: str
    outcome: str
    version: int = 0
