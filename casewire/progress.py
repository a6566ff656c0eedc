"""How far the consumer groups are behind, and waiting until they are not."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest

from casewire.reading import consuming
from casewire.topics import admin, partition_numbers
from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings

_REPLAYS: Final = "replays"

#: What `casewire streams` and a sink read, each after all of what the one before makes of it.
STAGES: Final = (
    ("captured", _REPLAYS), ("cases", "case-changes", "forms", "users", "locations"),
)  # fmt: skip
_POLL_SECONDS: Final = 0.5
_MOST_TRIES: Final = 20
_PASSING: Final = (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)

Offsets: TypeAlias = Mapping[tuple[str, int], int]


def behind(ends: Offsets, committed: Offsets) -> int:
    """Return how many records lie between what is committed and the ends."""
    return sum(max(0, end - committed.get(place, 0)) for place, end in ends.items())


async def await_caught_up(
    kafka: KafkaSettings, sinks: Mapping[str, Sequence[str]], report: Callable[[str, int], None]
) -> None:
    """Return when all that is captured now has gone through streams and into every sink.

    `sinks` maps their names to the topics that they read (short names). `report` is told the group
    and how many records it is behind. Raises UnavailableError.
    """
    for topics in STAGES:
        await _await_group(kafka, kafka.group("streams"), topics, report)
    for name, sources in sinks.items():
        await _await_group(kafka, kafka.group(f"sink-{name}"), [*sources, _REPLAYS], report)


async def _await_group(
    kafka: KafkaSettings, group: str, topics: Sequence[str], report: Callable[[str, int], None]
) -> None:
    ends = await end_offsets(kafka, [kafka.topic(name) for name in topics])
    async with admin(kafka) as client:
        while left := behind(ends, await committed_offsets(client, group)):
            report(group, left)
            await asyncio.sleep(_POLL_SECONDS)
    report(group, 0)


async def committed_offsets(client: Any, group: str) -> Offsets:
    """Return a group's committed offset of each partition that it has committed one of.

    aiokafka's own `list_consumer_group_offsets` passes over the error of the whole answer: a group
    whose coordinator is just loading it would seem to have committed nothing. Raises KafkaError.
    """

    async def ask() -> Offsets:
        coordinator = await client.find_coordinator(group)
        request = OffsetFetchRequest(group, None)
        answer = await client._send_request(request, coordinator)  # noqa: SLF001
        found = {}
        _require_none(answer.error_code)
        for topic, partitions in answer.topics:
            for number, offset, _, code in partitions:
                _require_none(code)
                found[topic, number] = offset
        return found

    offsets: Offsets = await _with_coordinator(ask)
    return offsets


def _require_none(code: int) -> None:
    if code:
        raise for_code(code)


@dataclass(frozen=True, slots=True)
class Member:
    """A process in a group: what it calls itself, and the address that it comes from."""

    client_id: str
    host: str


async def members_of(client: Any, group: str) -> Sequence[Member]:
    """Return the processes in a group. Raises UnavailableError if nobody can say now."""

    async def ask() -> Any:
        (reply,) = await client.describe_consumer_groups([group])
        (found,) = reply.groups
        if issubclass(for_code(found[0]), _PASSING):
            raise for_code(found[0])
        return found

    code, _, _, _, _, members, *_ = await _with_coordinator(ask)
    if code:
        raise UnavailableError(f"the broker does not tell who is in {group} (error {code})")
    return [Member(client_id, host.lstrip("/")) for _, client_id, host, *_ in members]


async def _with_coordinator(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask again while a broker makes the topic that it keeps groups on, or reads it."""
    for _ in range(_MOST_TRIES):
        with contextlib.suppress(*_PASSING):
            return await ask()
        await asyncio.sleep(_POLL_SECONDS)
    return await ask()


async def first_offsets(kafka: KafkaSettings, topics: Sequence[str]) -> Offsets:
    """Return the first offset that is kept of each partition of topics (full names)."""
    return await _offsets(kafka, topics, AIOKafkaConsumer.beginning_offsets)


async def end_offsets(kafka: KafkaSettings, topics: Sequence[str]) -> Offsets:
    """Return the offsets after the last record of each partition of topics (full names)."""
    return await _offsets(kafka, topics, AIOKafkaConsumer.end_offsets)


async def _offsets(
    kafka: KafkaSettings, topics: Sequence[str], ask: Callable[..., Awaitable[Any]]
) -> Offsets:
    places = [TopicPartition(*each) for each in await partition_numbers(kafka, topics)]
    async with consuming(kafka) as consumer:
        # All at once: aiokafka would ask for one topic after the other, 0.1 s each.
        await consumer._client.set_topics({place.topic for place in places})  # noqa: SLF001
        found = await ask(consumer, places)
    return {(place.topic, place.partition): offset for place, offset in found.items()}
