"""Tables of latest states: a batch's changes go to the changelog first, then to the store."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import faust
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust.types import TP

from schemas.envelope import Headers
from schemas.errors import WorkerError
from schemas.partitioner import partition_of
from streams.batches.batch import Work
from streams.batches.producer import BatchProducer
from streams.fence import ChangelogReader, Ends, FencedError, Gap, overwritten, version_of
from streams.records import Out

#: How often a table asks where its changelog ends, to find what others wrote.
FENCE_SECONDS = 2.0


class WrongPartitionError(WorkerError):
    """A key met a partition that is not its own: the topics' partitions do not agree."""


class Change(NamedTuple):
    """A changelog record in the shape in which stores take them (event and message in one)."""

    key: bytes
    value: bytes | None
    tp: TP
    offset: int

    @property
    def message(self) -> "Change":
        return self

    @property
    def partition(self) -> int:
        partition: int = self.tp.partition
        return partition


HeadersOf: TypeAlias = Callable[[bytes, bytes], Headers]
"""From a key and the value that is held for it to the headers with which it was published."""

VERSION_BYTES = 8


def packed(version: int, value: bytes) -> bytes:
    """Return a value as the store has it, behind its version."""
    return version.to_bytes(VERSION_BYTES, "big") + value


def version_in(stored: bytes) -> int:
    return int.from_bytes(stored[:VERSION_BYTES], "big")


class BatchTable(faust.Table):  # type: ignore[type-arg]
    """Table of raw keys and values, written per batch: changelog first, then the local store.

    Its changelog may be written by one agent only: the sends of two could swap. What a worker
    that is no longer the owner writes is written over (streams/fence.py) once `guard` is called.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Counts batches here; 1 has a special meaning in Faust's recovery.
        super().__init__(*args, **{**kwargs, "recovery_buffer_size": 2})
        self.unsent: dict[bytes, bytes | None] = {}  # not yet acknowledged by the broker
        self.ends = Ends()
        self.sending: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._writer = b""
        self._headers_of: HeadersOf | None = None

    def guard(self, writer: str, headers_of: HeadersOf) -> None:
        """Write over what others write; `writer` is what our states have as `casewire-writer`."""
        self._writer = writer.encode()
        self._headers_of = headers_of

    def changes(self, batch: Work) -> "Changes":
        """Return what the batch is to change. It finishes after the batches before it that did.

        An agent that reads two topics gets batches of both; a store must take their changes in
        the order of the changelog. Of two tables, the first that is asked makes the order.
        """
        if batch.chain == batch.tp:
            batch.chain = TP(self.changelog_topic_name, batch.partition)
        return Changes(self, batch)

    def held(self, key: bytes) -> bytes | None:
        """Return what is held for a key, behind its version; sent or not."""
        if key in self.unsent:
            return self.unsent[key]
        stored: bytes | None = self.data.get(key)
        return stored

    def owns(self, partitions: set[int]) -> None:
        """Note which changelog partitions are ours now."""
        self.ends.lost(self.ends.known.keys() - partitions)

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Recovery: store the newest of changelog batches; a lower version is ignored."""
        newest: dict[bytes, Change] = {}
        for event in batch:
            tp = event.value.tp
            for record in event.value.records:
                key, version = record.key, version_of(record.headers)
                held = newest[key].value if key in newest else self.data.get(key)
                if held is None or version >= version_in(held):
                    value = None if record.value is None else packed(version, record.value)
                    newest[key] = Change(key, value, tp, record.offset)
            self.ends.recovered(tp.partition, event.value.offset + 1)
        self.store(newest.values())

    def store(self, changes: Iterable[Change]) -> None:
        super().apply_changelog_batch(changes)  # type: ignore[arg-type]

    async def on_start(self) -> None:
        await super().on_start()
        servers = ",".join(f"{url.host}:{url.port}" for url in self.app.conf.broker_consumer)
        self._reader = ChangelogReader(servers, self.changelog_topic_name)

    async def on_stop(self) -> None:
        await self._reader.stop()
        await super().on_stop()

    @faust.Service.task
    async def _watch_for_others(self) -> None:
        async for _ in self.itertimer(FENCE_SECONDS, name="fence"):
            if self._headers_of and not (self.app.rebalancing or self.app.in_recovery):
                await self._look_for_others(self._reader, self._headers_of)

    async def _look_for_others(self, reader: ChangelogReader, headers_of: HeadersOf) -> None:
        try:
            for partition, end in (await reader.ends(self.ends.known)).items():
                self.ends.seen(partition, end)
            for gap in self.ends.gaps[:]:
                await self._write_over(gap, await reader.read(gap), headers_of)
                self.ends.gaps.remove(gap)
        except ConsumerStoppedError:
            return  # the worker stops
        except KafkaError as error:
            self.log.warning("cannot look for writes of others now: %s", type(error).__name__)
        except FencedError as error:
            await self.app.crash(error)

    async def _write_over(self, gap: Gap, records: Sequence[Any], headers_of: HeadersOf) -> None:
        held = {key: self.held(key) for key in {record.key for record in records}}
        versions = {key: version_in(value) for key, value in held.items() if value is not None}
        lower, fenced = overwritten(records, versions, self._writer)
        if fenced:
            raise FencedError(
                f"another worker owns {self.changelog_topic_name}/{gap.partition}; "
                "this one was frozen, and starts anew"
            )
        if not lower:
            return
        self.log.warning("writing %s states over older ones of another worker", len(lower))
        producer: BatchProducer = self.app.producer  # type: ignore[assignment]
        async with self.sending[gap.partition]:
            now = {key: self.held(key) for key in lower}
            out = [
                Out(key, value[VERSION_BYTES:], headers_of(key, value[VERSION_BYTES:]))
                for key, value in now.items()
                if value is not None
            ]
            sends = await producer.send_records(self.changelog_topic_name, gap.partition, out)
        for sent, count in sends:
            self.ends.wrote(gap.partition, (await sent).offset, count)


@dataclass(slots=True)
class Changes:
    """What one batch changes in a table: reads see earlier writes at once."""

    table: BatchTable
    batch: Work
    log: list[Out] = field(default_factory=list)
    stored: list[bytes | None] = field(default_factory=list)

    def get(self, key: bytes) -> bytes | None:
        held = self.table.held(key)
        return None if held is None else held[VERSION_BYTES:]

    def put(self, key: bytes, value: bytes | None, headers: Headers) -> None:
        """Set the value of a key (None deletes it). Its version is that of the headers."""
        stored = None if value is None else packed(version_of(headers), value)
        self.table.unsent[key] = stored
        self.log.append(Out(key, value, headers))
        self.stored.append(stored)

    async def send(self) -> None:
        """Send the changes to the changelog; the batch waits for their acknowledgement."""
        table, batch = self.table, self.batch
        producer: BatchProducer = table.app.producer  # type: ignore[assignment]
        tp = TP(table.changelog_topic_name, batch.partition)
        partitions = await producer.partitions(tp.topic)
        for record in self.log:
            if partition_of(record.key, partitions) != tp.partition:
                raise WrongPartitionError(
                    f"a key read from {batch.topic}/{tp.partition} does not belong to "
                    f"{tp.topic}/{tp.partition}: run casewire topics check"
                )
        async with table.sending[tp.partition]:
            sends = await producer.send_records(tp.topic, tp.partition, self.log)
        start = 0
        for sent, count in sends:
            batch.after(sent, partial(self._sent, tp, range(start, start + count)))
            start += count

    def _sent(self, tp: TP, which: range, result: Any) -> None:
        table = self.table
        table.ends.wrote(tp.partition, result.offset, len(which))
        table.store(
            Change(self.log[i].key, self.stored[i], tp, result.offset + i - which.start)
            for i in which
        )
        for i in which:
            key = self.log[i].key
            if table.unsent.get(key, table.unsent) is self.stored[i]:  # else it was changed again
                del table.unsent[key]


def work_on(table: BatchTable, partition: int) -> Work:
    """Return work on a table's partition that follows from no batch."""
    work = Work(TP(table.changelog_topic_name, partition))
    work.bind(table.app)
    return work
