"""The broker's topics, what lies in them before a run, and what came of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.ingress.load import HEADERS
from benchmarks.streams.events import forms, snapshots
from casewire.progress import committed_offsets
from casewire.topics import create_topics
from schemas.partitioner import partition_of
from schemas.settings import KafkaSettings
from streams.decode import decode
from streams.records import Out, Record
from tests.streams.made import captured

PARTITIONS: Final = 8
#: How many captured events the ingress sends to one partition before it takes the next.
_TURN: Final = 512
_BATCH_BYTES: Final = 1_000_000
_FETCH_BYTES: Final = 4 * 1024 * 1024
_SENT: Final = [(name.lower(), value.encode()) for name, value in HEADERS.items()]


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics under one prefix, and clients to look at them with."""

    kafka: KafkaSettings
    admin: Any
    consumer: Any

    async def anew(self, keep: Sequence[str]) -> None:
        """Delete all that a run left; only the topics to `keep` (short names) stay."""
        kept = {self.kafka.topic(name) for name in keep}
        present = set(await self.admin.list_topics())
        # The engines name topics of their own after the group, and the group after the prefix.
        stem = self.kafka.topic_prefix.rstrip(".")
        old = {name for name in present - kept if stem in name}
        if old:
            await self.admin.delete_topics(list(old))
        while old:
            await asyncio.sleep(0.05)
            old &= set(await self.admin.list_topics())
        await create_topics(self.kafka)

    async def rewind(self, group: str, *names: str) -> None:
        """Have a group that has no members begin again with topics (short names)."""
        places = self._places(names)
        async with AIOKafkaConsumer(
            bootstrap_servers=self.kafka.bootstrap_servers, group_id=group, enable_auto_commit=False
        ) as consumer:
            consumer.assign(places)
            await consumer.commit(dict.fromkeys(places, 0))

    async def create(self, names: Iterable[str]) -> None:
        """Create those of some compacted topics (full names) that are not there."""
        missing = set(names) - set(await self.admin.list_topics())
        policy = {"cleanup.policy": "compact"}
        await self.admin.create_topics(
            [NewTopic(name, PARTITIONS, 1, topic_configs=policy) for name in missing]
        )
        while missing:
            await asyncio.sleep(0.05)
            missing -= set(await self.admin.list_topics())

    async def committed(self, group: str, *topics: str) -> int:
        """Return the sum of what a group has committed of topics (short names)."""
        wanted = {self.kafka.topic(name) for name in topics}
        found = await committed_offsets(self.admin, group)
        return sum(offset for (topic, _), offset in found.items() if topic in wanted)

    async def ends(self, *topics: str) -> int:
        """Return how many records topics (short names) have."""
        ends = await self.consumer.end_offsets(self._places(topics))
        return sum(ends.values())

    def _places(self, topics: Sequence[str]) -> Sequence[Any]:
        return [
            TopicPartition(self.kafka.topic(name), partition)
            for name in topics
            for partition in range(PARTITIONS)
        ]


@contextlib.asynccontextmanager
async def topics_of(bootstrap_servers: str, prefix: str) -> AsyncIterator[Topics]:
    """Create Casewire's topics under a prefix."""
    kafka = KafkaSettings(
        bootstrap_servers=bootstrap_servers, topic_prefix=prefix, partitions=PARTITIONS
    )
    await create_topics(kafka)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        async with consumer:
            yield Topics(kafka, admin, consumer)
    finally:
        await admin.close()


async def fill(topics: Topics, name: str, records: Iterable[Out]) -> None:
    """Send records to a topic in large batches, each to its key's partition."""
    await _fill(topics, name, ((partition_of(out.key, PARTITIONS), out) for out in records))


async def fill_captured(topics: Topics, bodies: Iterable[bytes]) -> None:
    """Send captured events, which take turns on the partitions as the ingress has them."""
    await _fill(
        topics,
        "captured",
        (
            (number // _TURN % PARTITIONS, Out(event.key or b"", event.value, event.headers))
            for number, event in enumerate(map(_captured, bodies))
        ),
    )


async def _fill(topics: Topics, name: str, records: Iterable[tuple[int, Out]]) -> None:
    topic = topics.kafka.topic(name)
    rest = iter(records)
    async with AIOKafkaProducer(
        bootstrap_servers=topics.kafka.bootstrap_servers,
        compression_type="zstd",
        max_batch_size=_BATCH_BYTES,
    ) as producer:
        while some := list(islice(rest, PARTITIONS * _TURN)):
            await asyncio.gather(
                *[
                    await producer.send(
                        topic, out.value, out.key, partition=partition, headers=out.headers
                    )
                    for partition, out in some
                ]
            )


def bare_events(count: int) -> Iterable[Out]:
    return (Out(key_of(each.case_id), each.body, ()) for each in snapshots(count))


def case_events(count: int) -> Iterable[Out]:
    """Yield what the decoder makes of snapshots."""
    return (decode(_captured(each.body)).out for each in snapshots(count))


def case_bodies(count: int) -> Iterable[bytes]:
    return (each.body for each in snapshots(count))


form_bodies = forms


def key_of(case_id: str) -> bytes:
    return f"demo/{case_id}".encode()


def _captured(body: bytes) -> Record:
    kind = b"text/xml" if body.startswith(b"<") else b"application/json"
    headers = [(name, kind if name == "content-type" else value) for name, value in _SENT]
    return captured(body, headers=headers)


async def last_values(topics: Topics, topic: str) -> Mapping[bytes, bytes]:
    """Return the last value of each key of a topic (full name)."""
    last: dict[bytes, bytes] = {}
    async for record in _read(topics, topic):
        last[record.key] = record.value
    return last


async def _read(topics: Topics, topic: str) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=topics.kafka.bootstrap_servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=_FETCH_BYTES,
    )
    async with consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    yield record
