"""What the alerts role reads, and how it and others write to its topics."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from casewire.alerts.state import saved_state
from casewire.alerts.troubles import Trouble
from casewire.reading import read_topic
from casewire.tables import nearest
from casewire.topics import unanswered
from kafka_clients.login import client_options
from schemas.errors import ConfigError
from schemas.settings import KafkaSettings
from schemas.times import now
from streams.alarms import as_record
from streams.records import Out

READ: Final = ("dead-letters", "dead-letter-state", "alerts", "deliveries")


async def read_troubles(kafka: KafkaSettings) -> Sequence[Trouble]:
    """Return every trouble that there was, those that are over too."""
    return saved_state([record async for record in read_topic(kafka, "alert-state")])[0]


async def mute_group(kafka: KafkaSettings, group: str, until: str) -> None:
    """Have nobody told of a group before a time. Raises ConfigError if there is no such group."""
    troubles = {each.group: each for each in await read_troubles(kafka)}
    if group not in troubles:
        raise ConfigError(_unknown(group, list(troubles)))
    at = now()
    told = msgspec.structs.replace(troubles[group].alert(at), status="muted", muted_until=until)
    async with producing(kafka) as producer:
        await send(producer, kafka.topic("alerts"), [as_record(told)])


def _unknown(group: str, known: Sequence[str]) -> str:
    if not known:
        return f"there is no alert {group!r}, nor any other yet"
    return f"there is no alert {group!r}; did you mean {nearest(group, known)!r}?"


async def send(producer: Any, topic: str, records: Sequence[Out]) -> None:
    """Send records with an AIOKafkaProducer; return when the broker has them."""
    sends = [
        await producer.send(topic, out.value, out.key, headers=list(out.headers)) for out in records
    ]
    await asyncio.gather(*sends)


@asynccontextmanager
async def producing(kafka: KafkaSettings) -> AsyncIterator[Any]:
    """Give a started AIOKafkaProducer. Raises UnavailableError if there is no broker."""
    producer = AIOKafkaProducer(**client_options(kafka), acks="all", enable_idempotence=True)
    try:
        await producer.start()
        yield producer
    except KafkaConnectionError as error:
        raise await unanswered(kafka, error) from error
    finally:
        await producer.stop()
