"""Writes of a worker that is no longer the owner: noticed by their offsets, and written over.

A worker that was frozen for longer than its session (SIGSTOP, a paused machine) wakes up and sends
what it had begun, although its partitions have a new owner. Kafka appends it: an old state would
stay over a newer one. So every state says who wrote it (`casewire-writer`) and its version
(`casewire-version`), and the owner knows where each of its changelog partitions must end: after
its own last write. Where one ends further, somebody else wrote; the owner reads just that part.

- A lower version than the owner holds: the owner publishes what it holds again.
- A greater one: the owner is the one that was frozen. It ends, with nothing acknowledged.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from kafka_clients.closing import close_consumer
from schemas.envelope import Headers
from schemas.errors import WorkerError
from streams.batches.raw import HeaderBlock

VERSION: Final = "casewire-version"
WRITER: Final = "casewire-writer"
READ_MS: Final = 500
_WRITTEN: Final = bytes([2 * len(VERSION)]) + VERSION.encode()


class FencedError(WorkerError):
    """Another worker owns the partition: this one must end and join the group anew."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets of a changelog partition that this worker did not write, `stop` exclusive."""

    partition: int
    start: int
    stop: int


@dataclass(slots=True)
class Ends:
    """Where this worker's changelog partitions end, as far as it knows. Pure."""

    known: dict[int, int] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)

    def wrote(self, partition: int, first: int, count: int) -> None:
        """Note `count` records of ours at offset `first`; what lies between is a gap."""
        start = self.known.get(partition, first)
        if first > start:
            self.gaps.append(Gap(partition, start, first))
        self.known[partition] = max(start, first + count)

    def recovered(self, partition: int, end: int) -> None:
        """Note that all below `end` has been read into the table."""
        self.known[partition] = max(end, self.known.get(partition, 0))

    def seen(self, partition: int, end: int) -> None:
        """Note where the broker says that the partition ends."""
        if partition in self.known:
            self.wrote(partition, end, 0)

    def closed(self, gap: Gap) -> None:
        """Note that a gap was looked at, and what had to be was written over."""
        if gap in self.gaps:  # else the partition has another owner now
            self.gaps.remove(gap)

    def lost(self, partitions: Iterable[int]) -> None:
        """Forget partitions that have another owner now."""
        gone = set(partitions)
        self.known = {number: end for number, end in self.known.items() if number not in gone}
        self.gaps = [gap for gap in self.gaps if gap.partition not in gone]


def version_of(headers: Headers) -> int:
    """Return the version that a record's headers tell, 0 if they tell none."""
    if isinstance(headers, HeaderBlock) and (first := headers.first(_WRITTEN)):
        return int(first)
    for name, value in headers:  # a state has it first
        if name == VERSION:
            return int(value)
    return 0


def overwritten(
    records: Iterable[Any], held: Mapping[bytes, int], writer: bytes
) -> tuple[set[bytes], bool]:
    """Judge records of a gap against the versions that are held, by key.

    Returns the keys whose newest state an older one has been written over, and whether somebody
    else holds a greater version of one: then this worker is not the owner any more.
    """
    versions: dict[bytes, int] = {}
    fenced = False
    for record in records:
        if (WRITER, writer) in record.headers or record.key not in held:
            continue
        versions[record.key] = version_of(record.headers)
        fenced = fenced or versions[record.key] > held[record.key]
    return {key for key, version in versions.items() if version < held[key]}, fenced


class ChangelogReader:
    """Reads parts of a changelog, beside the worker's own consumer and without a group."""

    def __init__(self, client: Mapping[str, Any], topic: str) -> None:
        """`client` are the arguments that every client of aiokafka's needs."""
        self._topic = topic
        self._client = client
        self._started: Any = None
        self._lock = asyncio.Lock()  # one client reads one thing at a time

    async def ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """Return where partitions end."""
        consumer = await self._consumer()
        places = [TopicPartition(self._topic, number) for number in partitions]
        found = await consumer.end_offsets(places) if places else {}
        return {place.partition: end for place, end in found.items()}

    async def read(self, gap: Gap) -> list[Any]:
        """Return the records of a gap; fewer than its offsets where it was compacted."""
        consumer = await self._consumer()
        place = TopicPartition(self._topic, gap.partition)
        records: list[Any] = []
        async with self._lock:
            consumer.assign([place])
            consumer.seek(place, gap.start)
            while await consumer.position(place) < gap.stop:
                fetched = await consumer.getmany(place, timeout_ms=READ_MS)
                records.extend(r for r in fetched.get(place, ()) if r.offset < gap.stop)
        return records

    async def first(self, offsets: Mapping[int, int]) -> Mapping[int, Any]:
        """Return the first record at or behind an offset, by partition, where there is one."""
        ends = await self.ends(offsets)
        left = {TopicPartition(self._topic, n): end for n, end in ends.items() if end > offsets[n]}
        found: dict[int, Any] = {}
        if not left:
            return found
        consumer = await self._consumer()
        async with self._lock:
            consumer.assign(list(left))
            for place in left:
                consumer.seek(place, offsets[place.partition])
            while left:
                fetched = await consumer.getmany(*left, timeout_ms=READ_MS, max_records=len(left))
                for place, records in fetched.items():
                    found.setdefault(place.partition, records[0])
                for place in list(left):
                    if place.partition in found or await consumer.position(place) >= left[place]:
                        consumer.pause(place)
                        del left[place]
        return found

    async def stop(self) -> None:
        if self._started is not None:
            await close_consumer(self._started)

    async def _consumer(self) -> Any:
        if self._started is None:
            consumer = AIOKafkaConsumer(
                **self._client,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            )
            try:
                await consumer.start()
            except BaseException:  # also when nobody waits for it any more
                await consumer.stop()
                raise
            self._started = consumer
        return self._started
