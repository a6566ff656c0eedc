"""Creates and checks the topics of `schemas.topics.TOPICS` on any cluster (contract §4)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from kafka_clients.login import client_options
from kafka_clients.refusals import NOT_ALLOWED, not_allowed, why_not
from kafka_clients.rights import Right, require_rights
from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS, topic_config

AdminClient: TypeAlias = Any
"""An AIOKafkaAdminClient; aiokafka has no types."""

_VISIBLE_SECONDS: Final = 20
_REQUEST_MS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Actual:
    """A topic as the cluster has it. `config` are the broker's names and values."""

    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What of a topic is not as it should be. `found` is empty if the topic is missing."""

    topic: str
    what: str
    wanted: str
    found: str
    remedy: str

    def __str__(self) -> str:
        if not self.found:
            return f"topic {self.topic} is missing; {self.remedy}"
        return (
            f"topic {self.topic} has {self.what}={self.found} instead of {self.wanted}; "
            f"{self.remedy}"
        )

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


async def create_topics(kafka: KafkaSettings) -> Sequence[str]:
    """Create the topics that are missing; return their names once each can be used.

    Raises UnavailableError if there is no broker, or if it refuses a topic.
    """
    async with admin(kafka) as client:
        present = set(await client.list_topics())
        missing = [name for name in TOPICS if kafka.topic(name) not in present]
        answer = await client.create_topics([_new_topic(kafka, name) for name in missing])
        for topic, code, *rest in answer.topic_errors:
            # Another process that starts at the same time may have been faster.
            if code not in (0, TopicAlreadyExistsError.errno):
                reason = rest[0] if rest and rest[0] else for_code(code).__name__
                raise UnavailableError(
                    f"the broker at {kafka.bootstrap_servers} refused topic {topic} ({reason}); "
                    "correct [kafka], or create it by hand"
                )
        await _await_leaders(client, [kafka.topic(name) for name in missing])
        return [kafka.topic(name) for name in missing]


class NoBrokerError(UnavailableError):
    """No broker answers; one may yet."""


async def check_topics(kafka: KafkaSettings) -> Sequence[Difference]:
    """Return each difference between the cluster's topics and the table of topics.

    Raises UnavailableError if there is no broker.
    """
    async with admin(kafka) as client:
        return differences(kafka, await _actual_topics(client, kafka))


async def require_topics(kafka: KafkaSettings, needed: Sequence[Right]) -> None:
    """Raise UnavailableError if we lack a right, or if a topic is missing.

    Faust would ignore a topic that is missing (measured.md §4).
    """
    async with admin(kafka) as client:
        await require_rights(client._client, kafka, needed)  # noqa: SLF001
        found = differences(kafka, await _actual_topics(client, kafka, configs=False))
    for difference in found:
        if not difference.found or difference.what == "partitions":
            raise UnavailableError(str(difference))


async def partition_numbers(
    kafka: KafkaSettings, topics: Sequence[str]
) -> Sequence[tuple[str, int]]:
    """Return topic and number of each partition of topics (full names).

    Raises UnavailableError if there is no broker or one of the topics is missing.
    """
    async with admin(kafka) as client:
        present = set(await client.list_topics())
        for topic in topics:
            if topic not in present:
                raise UnavailableError(f"topic {topic} is missing; run casewire topics create")
        described = await client.describe_topics(list(topics))
        return [
            (topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
        ]


def differences(kafka: KafkaSettings, actual: Mapping[str, Actual]) -> Sequence[Difference]:
    """Compare the cluster's topics, by full name, with what `kafka` asks for."""
    found: list[Difference] = []
    for name in TOPICS:
        full = kafka.topic(name)
        if full in actual:
            found += _differences(kafka, name, actual[full])
        else:
            found.append(
                Difference(
                    topic=full,
                    what="presence",
                    wanted="present",
                    found="",
                    remedy="run casewire topics create",
                )
            )
    return found


def _differences(kafka: KafkaSettings, name: str, actual: Actual) -> list[Difference]:
    full = kafka.topic(name)
    more_partitions = (
        f"set [kafka] partitions = {actual.partitions} if all topics have as many, or create the "
        "topic anew: with more partitions its keys would lie on others"
    )
    more_replicas = (
        f"set [kafka] replication = {actual.replication}, or reassign its partitions "
        "with kafka-reassign-partitions"
    )
    compared = [
        ("partitions", str(kafka.partitions), str(actual.partitions), more_partitions),
        ("replication", str(kafka.replication), str(actual.replication), more_replicas),
    ]
    for key, wanted in wanted_config(kafka, name).items():
        remedy = (
            f"run kafka-configs --bootstrap-server {kafka.bootstrap_servers} --alter "
            f"--topic {full} --add-config {key}={wanted}"
        )
        compared.append((key, wanted, actual.config.get(key, "nothing"), remedy))
    return [
        Difference(topic=full, what=what, wanted=wanted, found=found, remedy=remedy)
        for what, wanted, found, remedy in compared
        if wanted != found
    ]


def wanted_config(kafka: KafkaSettings, name: str) -> dict[str, str]:
    return topic_config(
        TOPICS[name], replication=kafka.replication, retention_bytes=kafka.retention_bytes
    )


async def unanswered(kafka: KafkaSettings, error: Exception) -> UnavailableError:
    """Return what to say when the broker does not answer, or does not let us in."""
    if isinstance(error, NOT_ALLOWED):
        return UnavailableError(not_allowed(error, kafka))
    if reason := await why_not(kafka):
        return UnavailableError(reason)
    return NoBrokerError(
        f"no Kafka broker answers at {kafka.bootstrap_servers} ({type(error).__name__}); "
        "start one with casewire up, or set KAFKA_BOOTSTRAP_SERVERS to the address of yours"
    )


@contextlib.asynccontextmanager
async def admin(kafka: KafkaSettings) -> AsyncIterator[AdminClient]:
    """Give a connected admin client; any error of Kafka's becomes an UnavailableError."""
    client = AIOKafkaAdminClient(**client_options(kafka), request_timeout_ms=_REQUEST_MS)
    try:
        await client.start()
        yield client
    except (KafkaError, OSError, TimeoutError) as error:
        raise await unanswered(kafka, error) from error
    finally:
        await client.close()


def _new_topic(kafka: KafkaSettings, name: str) -> object:
    return NewTopic(
        kafka.topic(name),
        num_partitions=kafka.partitions,
        replication_factor=kafka.replication,
        topic_configs=wanted_config(kafka, name),
    )


async def _await_leaders(client: AdminClient, names: Sequence[str]) -> None:
    async with asyncio.timeout(_VISIBLE_SECONDS):
        while names:
            described = await client.describe_topics(list(names))
            if all(_has_leaders(topic) for topic in described):
                return
            await asyncio.sleep(0.05)


def _has_leaders(topic: Mapping[str, object]) -> bool:
    partitions = topic["partitions"]
    return (
        topic["error_code"] == 0
        and isinstance(partitions, list)
        and all(partition["error_code"] == 0 for partition in partitions)
    )


async def _actual_topics(
    client: AdminClient, kafka: KafkaSettings, *, configs: bool = True
) -> Mapping[str, Actual]:
    present = set(await client.list_topics())
    names = [full for full in map(kafka.topic, TOPICS) if full in present]
    if not names:
        return {}
    described = {topic["topic"]: topic for topic in await client.describe_topics(names)}
    found = await _configs(client, names) if configs else {}
    return {
        name: Actual(
            partitions=len(described[name]["partitions"]),
            replication=min(len(part["replicas"]) for part in described[name]["partitions"]),
            config=found.get(name, {}),
        )
        for name in names
    }


async def _configs(client: AdminClient, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs = {}
    for answer in await client.describe_configs(resources):
        for code, _message, _kind, name, entries in answer.resources:
            if code:
                raise for_code(code)(name)
            configs[name] = {entry[0]: entry[1] for entry in entries}
    return configs
