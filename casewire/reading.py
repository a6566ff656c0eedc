"""Reads what lies on a topic, without a group: from its beginning to where it ends now."""

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from casewire.topics import partition_numbers
from kafka_clients.closing import close_consumer
from kafka_clients.login import client_options
from schemas.settings import KafkaSettings
from schemas.topics import MEBIBYTE
from streams.delivery import SinkRecord
from streams.records import Record

Place: TypeAlias = tuple[int, int]
"""Partition and offset."""

R = TypeVar("R", bound=Record)


async def read_topic(
    kafka: KafkaSettings,
    topic: str,
    partition: int | None = None,
    since: Mapping[int, int] = MappingProxyType({}),
) -> AsyncIterator[SinkRecord]:
    """Yield the records of a topic (short name), or of one partition, up to where it ends now.

    `since` has the offsets to begin at, by partition; the default is the first that is kept.
    """
    numbers = await partition_numbers(kafka, [kafka.topic(topic)])
    places = [TopicPartition(*each) for each in numbers if partition in (None, each[1])]
    async with consuming(kafka, places) as consumer:
        ends = await consumer.end_offsets(places)
        for place in places:
            if place.partition in since:
                consumer.seek(place, min(since[place.partition], ends[place]))
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    if record.offset < ends[tp]:
                        yield record


async def offsets_since(kafka: KafkaSettings, topic: str, time_ms: int) -> Mapping[int, int]:
    """Return the offset of the first record of each partition that was appended at a time or later.

    Partitions (of a topic by its short name) that have none end there. Times are the broker's.
    """
    places = [TopicPartition(*p) for p in await partition_numbers(kafka, [kafka.topic(topic)])]
    async with consuming(kafka) as consumer:
        found = await consumer.offsets_for_times(dict.fromkeys(places, time_ms))
        ends = await consumer.end_offsets(places)
    return {
        place.partition: ends[place] if at is None else at.offset for place, at in found.items()
    }


async def read_record(kafka: KafkaSettings, topic: str, place: Place) -> SinkRecord | None:
    """Return the record at a place of a topic (full name), None if it is not kept any more."""
    partition, offset = place
    where = TopicPartition(topic, partition)
    async with consuming(kafka, [where]) as consumer:
        first = (await consumer.beginning_offsets([where]))[where]
        end = (await consumer.end_offsets([where]))[where]
        if not first <= offset < end:
            return None
        consumer.seek(where, offset)
        record: SinkRecord = await consumer.getone(where)
        return record if record.offset == offset else None


@contextlib.asynccontextmanager
async def consuming(
    kafka: KafkaSettings, places: Sequence[Any] = (), fetch_bytes: int = MEBIBYTE
) -> AsyncIterator[Any]:
    """Give a consumer without a group that reads these partitions from the first record on.

    One without partitions can be asked for offsets, and fetches nothing. `fetch_bytes`: so much of
    a partition is fetched at a time.
    """
    consumer = AIOKafkaConsumer(
        **client_options(kafka),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=fetch_bytes,
    )
    try:
        await consumer.start()
        if places:
            consumer.assign(places)
        yield consumer
    finally:
        await close_consumer(consumer)


async def in_order(records: AsyncIterator[R], places: Sequence[Place]) -> AsyncIterator[R]:
    """Yield those of a topic's records that lie at `places`, in the order of these.

    What has come too early is held meanwhile. A place that is empty now is passed over.
    """
    held: dict[Place, R] = {}
    wanted, upcoming = frozenset(places), deque(places)
    async for record in records:
        place = (record.partition, record.offset)
        if place in wanted:
            held[place] = record
        while upcoming and upcoming[0] in held:
            yield held.pop(upcoming.popleft())
    for place in upcoming:
        if place in held:
            yield held[place]
