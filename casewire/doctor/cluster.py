"""What can be wrong with the brokers, the topics, and the clocks."""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from aiokafka import TopicPartition

from casewire.config import Config
from casewire.reading import consuming
from casewire.topics import admin, check_topics, partition_numbers
from schemas.envelope import Headers
from schemas.settings import KafkaSettings
from schemas.times import to_microseconds
from streams.records import header

#: Clocks of machines with NTP differ by much less.
CLOCK_SECONDS: Final = 60
_CONNECT_SECONDS: Final = 5


async def brokers(config: Config) -> Sequence[str]:
    """Look whether each broker is where it says, and has what it should of our topics."""
    kafka = config.cluster
    async with admin(kafka) as client:
        found = (await client.describe_cluster())["brokers"]
        topics = await client.describe_topics()
    unreachable = [await _unreachable(each) for each in found]
    return [
        *filter(None, unreachable),
        *replica_problems(kafka, len(found), topics),
    ]


async def _unreachable(broker: Mapping[str, Any]) -> str | None:
    """Try the address that a broker advertises; the one that is configured is only the way in."""
    address = f"{broker['host']}:{broker['port']}"
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(broker["host"], broker["port"])
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return (
            f"broker {broker['node_id']} says that it is at {address}, which cannot be reached "
            f"from here ({reason}); correct its advertised.listeners, or the way to it"
        )
    writer.close()
    return None


def replica_problems(
    kafka: KafkaSettings, brokers: int, topics: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Judge what of our topics lies on fewer brokers than it should."""
    if brokers < kafka.replication:
        yield (
            f"there are {brokers} brokers, and [kafka] replication is {kafka.replication}; "
            "start the others"
        )
    ours = [
        (topic["topic"], partition)
        for topic in topics
        if topic["topic"].startswith(kafka.topic_prefix)
        for partition in topic["partitions"]
    ]
    dead = [f"{name}/{part['partition']}" for name, part in ours if part["leader"] < 0]
    thin = [part for _, part in ours if len(part["isr"]) < len(part["replicas"])]
    if dead:
        yield f"{len(dead)} partitions have no broker, such as {dead[0]}; start those that are down"
    elif thin:
        yield (
            f"{len(thin)} partitions are on fewer brokers than they should; start the brokers that "
            "are down, and wait until they have caught up"
        )


async def topics(config: Config) -> Sequence[str]:
    return [str(difference) for difference in await check_topics(config.cluster)]


async def clocks(config: Config) -> Sequence[str]:
    """Compare this machine's clock with the broker's, and the ingress's on the latest events."""
    limit_ms = int((time.time() + CLOCK_SECONDS) * 1000)
    topic = config.cluster.topic("captured")
    places = [TopicPartition(*each) for each in await partition_numbers(config.cluster, [topic])]
    async with consuming(config.cluster) as consumer:
        later = await consumer.offsets_for_times(dict.fromkeys(places, limit_ms))
        latest = await _latest(consumer, places)
    remedy = "set the clocks of all machines by NTP"
    problems = []
    if any(later.values()):
        problems.append(
            f"the broker's clock is more than {CLOCK_SECONDS} s ahead of that of "
            f"{os.uname().nodename}; {remedy}"
        )
    if any(_is_ahead(record.headers, record.timestamp) for record in latest):
        problems.append(
            f"an ingress's clock is more than {CLOCK_SECONDS} s ahead of the broker's; {remedy}"
        )
    return problems


async def _latest(consumer: Any, places: Sequence[Any]) -> Sequence[Any]:
    """Return the last record of each partition that has one."""
    begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
    filled = [place for place in places if begins[place] < ends[place]]
    consumer.assign(filled)
    for place in filled:
        consumer.seek(place, ends[place] - 1)
    return [await consumer.getone(place) for place in filled]


def _is_ahead(headers: Headers, appended_ms: int) -> bool:
    """Whether an event says that it came later than the broker appended it."""
    try:
        came = to_microseconds(header(headers, "ce_time") or "")
    except ValueError:
        return False
    return came // 1000 > appended_ms + CLOCK_SECONDS * 1000
