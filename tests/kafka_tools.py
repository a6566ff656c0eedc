"""Topics as Casewire makes them, and what is in them, for tests on a real broker."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.topics import TOPICS, topic_config

#: No error, and "topic already exists".
CREATED_CODES = (0, 36)


class ConsumerRecord(Protocol):
    """The attributes of aiokafka's ConsumerRecord that tests look at."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


async def create_topics(
    bootstrap: str,
    prefix: str,
    names: Iterable[str],
    partitions: int = 8,
    more: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Create topics of `schemas.topics.TOPICS` under `prefix`, with their settings and `more`."""
    topics = [
        NewTopic(
            prefix + name,
            partitions,
            1,
            topic_configs={
                **topic_config(TOPICS[name], replication=1, retention_bytes=-1),
                **more,
            },
        )
        for name in names
    ]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        response = await admin.create_topics(topics)
        failed = [error for error in response.topic_errors if error[1] not in CREATED_CODES]
        assert not failed, failed
    finally:
        await admin.close()


async def create_topic(bootstrap: str, name: str, partitions: int, **config: str) -> None:
    """Create a topic that is none of Casewire's own."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
        assert [error[1] for error in answer.topic_errors] == [0]
    finally:
        await admin.close()


async def read_all(bootstrap: str, topic: str) -> list[ConsumerRecord]:
    """Return all records of a topic up to the end it has now; in order within a partition."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        records: list[ConsumerRecord] = []
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records.extend(batch)
        return records
    finally:
        await consumer.stop()
