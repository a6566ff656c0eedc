"""Keeps the indexes of the partitions that a worker holds up to date, from the topics alone.

It reads beside the worker, without a group: what comes live and what is made anew after a loss go
the same way, and the keepers of states know nothing of it. While there is a lot to catch up with,
it takes at most a quarter of the worker's time.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence, Set as AbstractSet
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from kafka_clients.closing import close_consumer
from kafka_clients.login import client_options
from schemas.errors import named
from schemas.settings import KafkaSettings
from streams import metrics
from streams.past.indexes import Indexes
from streams.past.reads import Partition, RecordReader

_POLL_MS: Final = 200
_RECORDS_AT_ONCE: Final = 500
_SHARE: Final = 0.25
#: What comes one by one is indexed together: a transaction writes whole pages.
_GATHER_SECONDS: Final = 0.05
_AFTER_ERROR_SECONDS: Final = 1.0
_FORGET_SECONDS: Final = 60.0

_log = structlog.get_logger(__name__)


class Follower:
    """Fills `indexes`. `held` gives the partitions that this worker holds now."""

    def __init__(
        self,
        kafka: KafkaSettings,
        indexes: Indexes,
        reader: RecordReader,
        held: Callable[[], AbstractSet[int]],
    ) -> None:
        self._kafka = kafka
        self._indexes = indexes
        self._reader = reader
        self._held = held
        self._starts: dict[Partition, int] = {}

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the topics until the end of the block."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            self._indexes.close()

    async def _run(self) -> None:
        while True:
            consumer = AIOKafkaConsumer(
                **client_options(self._kafka),
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            )
            try:
                await consumer.start()
                await self._follow(consumer)
            except Exception as error:  # noqa: BLE001 - it goes on whatever it is
                known = isinstance(error, (KafkaError, OSError, sqlite3.Error))
                _log.warning(
                    "past moments cannot be indexed now", exc_info=not known, **named(error)
                )
                self._indexes.close()
                await asyncio.sleep(_AFTER_ERROR_SECONDS)
            finally:
                await close_consumer(consumer)

    async def _follow(self, consumer: Any) -> None:
        assigned: Sequence[int] = ()
        forgot = time.monotonic()
        while True:
            held = sorted(self._held())
            if not (held == assigned and self._indexes.ready(held)):
                await self._assign(consumer, held)
                assigned = held
            if not held:
                await asyncio.sleep(_POLL_MS / 1000)
                continue
            fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS_AT_ONCE)
            began = time.monotonic()
            if fetched:
                await self._indexes.add(
                    {Partition(*place): each for place, each in fetched.items()}
                )
            count = sum(map(len, fetched.values()))
            metrics.INDEXED.inc(count)
            full = count == _RECORDS_AT_ONCE
            pause = (time.monotonic() - began) * (1 / _SHARE - 1) if full else _GATHER_SECONDS
            await asyncio.sleep(pause)
            if time.monotonic() > forgot + _FORGET_SECONDS:
                await self._forget(held)
                forgot = time.monotonic()

    async def _assign(self, consumer: Any, held: Sequence[int]) -> None:
        places = [place for partition in held for place in self._indexes.layout.places(partition)]
        spans = await self._reader.spans(places)
        await self._indexes.open(held, {place: span.end for place, span in spans.items()})
        consumer.assign([TopicPartition(*place) for place in places])
        for place in places:
            position = max(self._indexes.next[place], spans[place].start)
            self._indexes.next[place] = position
            consumer.seek(TopicPartition(*place), position)

    async def _forget(self, held: Sequence[int]) -> None:
        places = [place for partition in held for place in self._indexes.layout.places(partition)]
        starts = {place: span.start for place, span in (await self._reader.spans(places)).items()}
        if starts != self._starts:
            await self._indexes.forget(starts)
            self._starts = starts
