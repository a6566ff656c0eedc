"""aiokafka's producer as the ingress uses it: made, connected, and thrown away when broken."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from ingress.lanes import Producer
from ingress.records import TOPIC_NAMES
from kafka_clients.login import client_options
from kafka_clients.refusals import why_not
from kafka_clients.rights import require_rights, rights
from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import MEBIBYTE

#: A batch takes no further record above this size; its first may be larger.
BATCH_BYTES: Final = MEBIBYTE

_REQUEST_TIMEOUT_MS: Final = 10_000
_CONNECT_SECONDS: Final = 15.0
_TOPIC_SECONDS: Final = 2.0
_CLOSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Connection:
    """A producer that is connected, and how many partitions each topic has."""

    producer: Producer
    partitions: Mapping[str, int]


async def connect(kafka: KafkaSettings) -> Connection:
    """Try once. Raises UnavailableError if the broker or a topic is not there."""
    producer = AIOKafkaProducer(
        **client_options(kafka),
        client_id="casewire-ingress",
        acks="all",
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES,
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
    )
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await producer.start()
        await require_rights(producer.client, kafka, rights(kafka, {})["ingress"])
        partitions: dict[str, int] = {}
        for name in TOPIC_NAMES:
            partitions[name] = await _partitions(producer, kafka.topic(name))
    except (UnavailableError, asyncio.CancelledError):
        await abandon(producer)
        raise
    except Exception as error:
        await abandon(producer)
        raise UnavailableError(
            await why_not(kafka)
            or f"Kafka cannot be reached at {kafka.bootstrap_servers} ({type(error).__name__})"
        ) from error
    return Connection(producer, partitions)


async def _partitions(producer: Any, topic: str) -> int:
    try:
        async with asyncio.timeout(_TOPIC_SECONDS):
            return len(await producer.partitions_for(topic))
    except TimeoutError as error:
        raise UnavailableError(
            f"the topic {topic} is not there: run `casewire topics create`"
        ) from error


async def abandon(producer: Any) -> None:
    """Close a producer without a wait for what it has not delivered.

    aiokafka's own `stop` would flush first, which a broken producer never ends, and an idempotent
    one does not end before the broker is back.
    """
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            # The client first: it fails the requests that the sender would wait for.
            await producer.client.close()
            await producer._sender.close()  # noqa: SLF001
            await producer.client.close()
    producer._closed = True  # noqa: SLF001 - else it warns that it was never closed
