"""The guard of a table: writes over what a worker that is no longer the owner has written.

How it is told, and why: streams/fence.py.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import faust
import structlog
from aiokafka.errors import ConsumerStoppedError, KafkaError

from schemas.envelope import Headers
from schemas.errors import named
from streams.batches.lag import client_of
from streams.batches.producer import BatchProducer
from streams.fence import ChangelogReader, FencedError, Gap, overwritten, version_of
from streams.records import Out
from streams.shelves import Shelves
from streams.stores import VERSION_BYTES

_log = structlog.get_logger(__name__)

#: How often a table asks where its changelog ends, to find what others wrote.
FENCE_SECONDS = 2.0

HeadersOf: TypeAlias = Callable[[bytes, bytes], Headers]
"""From a key and the value that is held for it to the headers with which it was published."""

NullOf: TypeAlias = Callable[[int, bytes], Out | None]
"""From a partition and a key that holds nothing to its null, if it had a value once."""


def no_null(_partition: int, _key: bytes) -> Out | None:
    return None


class Changelog:
    """A table's changelog as others than Faust's recovery use it.

    `sending` keeps the sends to a partition apart.
    """

    def __init__(self, app: Any, topic: str) -> None:
        self.app = app
        self.topic = topic
        self.reader = ChangelogReader(client_of(app), topic)
        self.sending: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def send(
        self, partition: int, records: Sequence[Out]
    ) -> list[tuple[asyncio.Future[Any], int]]:
        """See BatchProducer.send_records."""
        producer: BatchProducer = self.app.producer
        async with self.sending[partition]:
            return await producer.send_records(self.topic, partition, records)


class Guard(faust.Service):
    """Looks for what others wrote to a changelog, while this worker owns partitions of it."""

    def __init__(
        self,
        changelog: Changelog,
        shelves: Shelves,
        writer: str,
        headers_of: HeadersOf,
        null_of: NullOf,
    ) -> None:
        super().__init__()
        self._changelog = changelog
        self._shelves = shelves
        self._writer = writer.encode()
        self._headers_of = headers_of
        self._null_of = null_of

    @faust.Service.task
    async def _watch(self) -> None:
        app = self._changelog.app
        async for _ in self.itertimer(FENCE_SECONDS, name="fence"):
            if not (app.rebalancing or app.in_recovery):
                await self._look()

    async def _look(self) -> None:
        ends, reader = self._shelves.ends, self._changelog.reader
        try:
            for partition, end in (await reader.ends(ends.known)).items():
                ends.seen(partition, end)
            for gap in ends.gaps[:]:
                await self._write_over(gap, await reader.read(gap))
                ends.closed(gap)
        except ConsumerStoppedError:
            return  # the worker stops
        except KafkaError as error:
            _log.warning("writes of others cannot be looked for now", **named(error))
        except FencedError as error:
            await self._changelog.app.crash(error)

    async def _write_over(self, gap: Gap, records: Sequence[Any]) -> None:
        partition, shelves = gap.partition, self._shelves
        keys = {record.key for record in records}
        held = {key: out for key in keys if (out := self._held(partition, key)) is not None}
        versions = {key: version_of(out.headers) for key, out in held.items()}
        lower, fenced = overwritten(records, versions, self._writer)
        if fenced:
            raise FencedError(
                f"another worker owns {self._changelog.topic}/{partition}; "
                "this one was frozen, and starts anew"
            )
        if not lower:
            return
        _log.warning(
            "older states of another worker are written over",
            topic=self._changelog.topic,
            partition=partition,
            count=len(lower),
        )
        now = (self._held(partition, key) for key in lower)
        again = [each for each in now if each is not None]
        for sent, count in await self._changelog.send(partition, again):
            shelves.ends.wrote(partition, (await sent).offset, count)

    def _held(self, partition: int, key: bytes) -> Out | None:
        """Return what lies, or should lie, on the changelog for a key."""
        stored = self._shelves.get(partition, key)
        if stored is None:
            return self._null_of(partition, key)
        value = stored[VERSION_BYTES:]
        return Out(key, value, self._headers_of(key, value))
