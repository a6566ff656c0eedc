"""When a sink was done with what: its own records of deliveries, sent right after each commit."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from casewire.reading import read_topic
from schemas.delivery import BatchDelivery
from schemas.settings import KafkaSettings

_SCHEMA: Final = ("casewire-schema", b"batch-delivery/1")


class Done(NamedTuple):
    """Offsets (inclusive) of a partition that were settled at a time (seconds since 1970)."""

    partition: int
    first: int
    last: int
    at: float
    ends: Mapping[str, int]

    @property
    def events(self) -> int:
        return self.last - self.first + 1


async def delivered(kafka: KafkaSettings, sink: str) -> Sequence[Done]:
    """Return what a sink has settled, in the order of offsets within a partition."""
    found = []
    async for record in read_topic(kafka, "deliveries"):
        if _SCHEMA in record.headers:
            batch = BatchDelivery.from_json(record.value or b"")
            if batch.stage == f"sink:{sink}":
                at = record.timestamp / 1000
                place = (batch.partition, batch.first_offset, batch.last_offset)
                found.append(Done(*place, at, batch.counts))
    return sorted(found)


def require_written(done: Sequence[Done], total: int) -> None:
    """Raise RuntimeError unless so many events were settled, and none became a dead letter."""
    ends: Counter[str] = Counter()
    for batch in done:
        ends.update(batch.ends)
    if ends.total() != total or ends["dead"]:
        raise RuntimeError(f"of {total} events became {dict(ends)}")


async def visible(kafka: KafkaSettings, sink: str) -> Mapping[str, tuple[float, str]]:
    """Return when each captured event's state was in the target, and its `ce_time`, by its id."""
    by_partition: defaultdict[int, list[Done]] = defaultdict(list)
    for batch in await delivered(kafka, sink):
        by_partition[batch.partition].append(batch)
    firsts = {number: [batch.first for batch in some] for number, some in by_partition.items()}
    found: dict[str, tuple[float, str]] = {}
    async for record in read_topic(kafka, "case-state"):
        batches = by_partition[record.partition]
        batch = batches[bisect_right(firsts[record.partition], record.offset) - 1]
        headers = dict(record.headers)
        captured = headers["casewire-captured-id"].decode()
        found[captured] = (batch.at, headers["ce_time"].decode())
    return found
