"""Reads single records by their offsets, beside the worker's own consumer and without a group.

A consumer has one position a partition and fetches ahead of it. A fetch request of one's own brings
the one record batch that holds an offset; several may be on their way at once.

Leans on private names of aiokafka: its version is pinned exactly.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import (
    LeaderNotAvailableError,
    NodeNotReadyError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from kafka_clients.closing import close_consumer

#: The broker sends one whole record batch even if it is larger.
_FETCH_BYTES: Final = 16 * 1024
_AT_ONCE: Final = 8
_TRIES: Final = 5
_PAUSE_SECONDS: Final = 0.1
_MOVED: Final = (
    NotLeaderForPartitionError,
    LeaderNotAvailableError,
    UnknownTopicOrPartitionError,
    NodeNotReadyError,
)


class Partition(NamedTuple):
    """A partition of a topic (full name)."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class Span:
    """Where a partition begins and ends (exclusive) now."""

    start: int
    end: int


class RecordReader:
    """Reads records of any partition. It connects when it is first asked.

    `client` are the arguments that every client of aiokafka's needs.
    """

    def __init__(self, client: Mapping[str, Any]) -> None:
        self._client = client
        self._started: Any = None
        self._starting = asyncio.Lock()

    async def spans(self, places: Sequence[Partition]) -> Mapping[Partition, Span]:
        """Return where partitions begin and end. Raises KafkaError."""
        consumer = await self._consumer()
        theirs = [TopicPartition(*place) for place in places]
        starts, ends = await asyncio.gather(
            consumer.beginning_offsets(theirs), consumer.end_offsets(theirs)
        )
        return {place: Span(starts[place], ends[place]) for place in places}

    async def read(self, wanted: Iterable[tuple[Partition, int]]) -> list[Any]:
        """Return the records at these offsets, in any order, without those that are gone.

        Raises KafkaError.
        """
        by_place: dict[Partition, list[int]] = {}
        for place, offset in sorted(wanted):
            by_place.setdefault(place, []).append(offset)
        slices = [
            (place, offsets[start : start + size])
            for place, offsets in by_place.items()
            for size in [-(-len(offsets) // _AT_ONCE)]
            for start in range(0, len(offsets), size)
        ]
        found = await asyncio.gather(*(self._read(place, offsets) for place, offsets in slices))
        return [record for records in found for record in records]

    async def first(self, offsets: Mapping[Partition, int]) -> Mapping[Partition, Any]:
        """Return the first record at or behind an offset, by partition, where there is one.

        Raises KafkaError.
        """
        fetched = await asyncio.gather(*(self._fetch(*place) for place in offsets.items()))
        found = {
            place: next(iter(some), None) for place, some in zip(offsets, fetched, strict=True)
        }
        return {place: record for place, record in found.items() if record is not None}

    async def stop(self) -> None:
        if self._started is not None:
            await close_consumer(self._started)

    async def _read(self, place: Partition, offsets: Sequence[int]) -> list[Any]:
        records: list[Any] = []
        left = set(offsets)
        for offset in offsets:
            if offset in left:
                for record in await self._fetch(place, offset):
                    if record.offset in left:
                        records.append(record)
                        left.remove(record.offset)
                    if not left:
                        break
        return records

    async def _fetch(self, place: Partition, offset: int) -> Iterable[Any]:
        for attempt in range(_TRIES):
            try:
                return await self._fetch_once(place, offset)
            except OffsetOutOfRangeError:
                return ()
            except _MOVED:
                if attempt == _TRIES - 1:
                    raise
                consumer = await self._consumer()
                await consumer._client.force_metadata_update()  # noqa: SLF001
                await asyncio.sleep(_PAUSE_SECONDS)
        raise AssertionError("the last attempt returned or raised")

    async def _fetch_once(self, place: Partition, offset: int) -> Iterable[Any]:
        client = (await self._consumer())._client  # noqa: SLF001
        client.add_topic(place.topic)
        leader = client.cluster.leader_for_partition(TopicPartition(*place))
        if leader is None or leader == -1:
            raise LeaderNotAvailableError
        partitions = [(place.number, offset, _FETCH_BYTES)]
        request = FetchRequest(0, 1, _FETCH_BYTES, READ_UNCOMMITTED, [(place.topic, partitions)])
        response = await client.send(leader, request)
        ((_, ((_, code, *_rest, data),)),) = response.topics
        if code != 0:
            raise for_code(code)
        found: Iterable[Any] = PartitionRecords(
            TopicPartition(*place),
            MemoryRecords(data),
            aborted_transactions=[],
            fetch_offset=offset,
            key_deserializer=None,
            value_deserializer=None,
            check_crcs=True,
            isolation_level=READ_UNCOMMITTED,
        )
        return found

    async def _consumer(self) -> Any:
        async with self._starting:
            if self._started is None:
                consumer = AIOKafkaConsumer(**self._client, enable_auto_commit=False)
                try:
                    await consumer.start()
                except BaseException:  # also when nobody waits for it any more
                    await consumer.stop()
                    raise
                self._started = consumer
        return self._started
