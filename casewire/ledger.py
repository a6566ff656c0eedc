"""What `casewire.deliveries` tells of offsets: how each of them ended at a stage."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from casewire.reading import read_topic
from schemas.delivery import BatchDelivery, EventDelivery
from schemas.settings import KafkaSettings
from streams.delivery import SinkRecord
from streams.records import header

DELIVERIES: Final = "deliveries"


class Source(NamedTuple):
    """A partition of a topic (full name), as a stage reads it."""

    stage: str
    topic: str
    partition: int


class Told(NamedTuple):
    """An end, and when the broker took the record that tells it (milliseconds since 1970)."""

    outcome: str
    time_ms: int


class Batch(NamedTuple):
    """Offsets that a stage is through with, both inclusive, and when that was told."""

    first: int
    last: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Ends:
    """How the offsets of one source ended, as far as the ledger tells.

    `own` has those with a record of their own; all others of a batch ended as the stage is for:
    applied, or written.
    """

    batches: list[Batch] = field(default_factory=list)
    own: dict[int, Told] = field(default_factory=dict)

    def covered(self) -> "Covered":
        return Covered.of(self.batches)


@dataclass(frozen=True, slots=True)
class Covered:
    """Offsets in disjoint ranges, in order: `firsts` and `lasts`, both inclusive."""

    firsts: Sequence[int]
    lasts: Sequence[int]

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> "Covered":
        firsts: list[int] = []
        lasts: list[int] = []
        for first, last, _ in sorted(batches):
            if lasts and first <= lasts[-1] + 1:
                lasts[-1] = max(last, lasts[-1])
            else:
                firsts.append(first)
                lasts.append(last)
        return cls(firsts, lasts)

    def __contains__(self, offset: int) -> bool:
        place = bisect_right(self.firsts, offset) - 1
        return place >= 0 and offset <= self.lasts[place]


Ledger: TypeAlias = Mapping[Source, Ends]


async def read_ledger(kafka: KafkaSettings, since: Mapping[int, int] | None = None) -> Ledger:
    """Read the whole ledger, or what lies at the offsets `since` and behind, by partition."""
    ledger: dict[Source, Ends] = defaultdict(Ends)
    async for record in read_topic(kafka, DELIVERIES, since=since or {}):
        add(ledger, record)
    return ledger


def add(ledger: dict[Source, Ends], record: SinkRecord) -> None:
    """Add what a record of the ledger tells."""
    if header(record.headers, "casewire-schema") == "batch-delivery/1":
        batch = BatchDelivery.from_json(record.value or b"")
        told = Batch(batch.first_offset, batch.last_offset, record.timestamp)
        ledger[Source(batch.stage, batch.topic, batch.partition)].batches.append(told)
    else:
        event = EventDelivery.from_json(record.value or b"")
        source = Source(event.stage, event.topic, event.partition)
        ledger[source].own[event.offset] = Told(event.outcome, record.timestamp)
