"""Writes what operators decide: replays, and what has become of dead letters."""

import asyncio
import contextlib
import getpass
import os
from collections.abc import AsyncIterator
from typing import Any, Final

import click
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from kafka_clients.login import client_options
from schemas.envelope import Headers
from schemas.errors import ConfigError, UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import LARGE_RECORD
from streams.records import Out
from streams.sizes import fitting

#: More events than this are not replayed without a question.
MOST_UNASKED: Final = 100
_UNCONFIRMED: Final = 1000


class ReplayWriter:
    """Sends records to their keys' partitions. What was sent is safe when `settle` returns."""

    def __init__(self, kafka: KafkaSettings, producer: Any) -> None:
        self._kafka = kafka
        self._producer = producer
        self._sends: list[asyncio.Future[Any]] = []

    async def send(self, topic: str, out: Out) -> None:
        """Send a record to a topic (short name). Raises InvalidEventError if it is too large."""
        fitting(out, topic)
        sent = await self._producer.send(
            self._kafka.topic(topic), out.value, out.key, headers=list(out.headers)
        )
        self._sends.append(sent)
        if len(self._sends) >= _UNCONFIRMED:
            await self.settle()

    async def settle(self) -> None:
        """Return when the broker has confirmed all that was sent; raise what Kafka raises."""
        sends, self._sends = self._sends, []
        await asyncio.gather(*sends)


@contextlib.asynccontextmanager
async def replay_writer(kafka: KafkaSettings) -> AsyncIterator[ReplayWriter]:
    """Give a writer; what it has sent is confirmed in the end. Raises UnavailableError."""
    producer = AIOKafkaProducer(
        **client_options(kafka),
        acks="all",
        enable_idempotence=True,
        compression_type="zstd",
        max_request_size=2 * LARGE_RECORD,
    )
    try:
        await producer.start()
        writer = ReplayWriter(kafka, producer)
        yield writer
        await writer.settle()
    except KafkaError as error:
        raise UnavailableError(
            f"the broker at {kafka.bootstrap_servers} did not take all of it "
            f"({type(error).__name__}); run the same command again: twice is harmless"
        ) from error
    finally:
        await producer.stop()


def operator() -> str:
    """Return who runs this, and where."""
    return f"{getpass.getuser()}@{os.uname().nodename}"


def state_headers(event_id: str, event_type: str, schema: str, at: str) -> Headers:
    """Return the headers of a record that says what an operator decided."""
    texts = {
        "ce_specversion": "1.0",
        "ce_id": f"{event_id}/{at}",
        "ce_source": "/casewire",
        "ce_type": event_type,
        "ce_time": at,
        "ce_subject": event_id,
        "content-type": "application/json",
        "casewire-schema": schema,
    }
    return [(name, text.encode()) for name, text in texts.items()]


def confirm(question: str, count: int, *, yes: bool) -> None:
    """Ask before more than MOST_UNASKED are touched. Raises ConfigError where nobody can answer."""
    if yes or count <= MOST_UNASKED:
        return
    if not click.get_text_stream("stdin").isatty():
        raise ConfigError(f"these are {count:,} events; give --yes to go on without a question")
    click.confirm(question, abort=True, err=True)
