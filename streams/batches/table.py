"""Tables of latest states: a batch's changes go to the changelog first, then to the store."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import faust
import structlog
from faust.types import TP

from schemas.envelope import Headers
from schemas.errors import WorkerError
from schemas.partitioner import partition_of
from streams.batches.batch import Work
from streams.batches.guard import Changelog, Guard, HeadersOf, NullOf, no_null
from streams.batches.producer import BatchProducer
from streams.batches.tail import EmptyTail
from streams.fence import version_of
from streams.records import Out
from streams.shelves import Shelves
from streams.stores import VERSION_BYTES, MemoryStores, Stores, packed

_log = structlog.get_logger(__name__)


class WrongPartitionError(WorkerError):
    """A key met a partition that is not its own: the topics' partitions do not agree."""


class BatchTable(faust.Table):  # type: ignore[type-arg]
    """Table of raw keys and values, written per batch: changelog first, then the local store.

    Its changelog may be written by one agent only: the sends of two could swap. What a worker
    that is no longer the owner writes is written over (streams/fence.py) once `guard` is called.
    Faust's own store stays empty: states are in `shelves`, and Faust is told how far those go.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Counts batches here; for recovery 1 has a special meaning in Faust.
        sizes = {"recovery_buffer_size": 2, "standby_buffer_size": 1}
        super().__init__(*args, **{**kwargs, **sizes})
        self.keep_in(MemoryStores())
        self._guarded: tuple[str, HeadersOf, NullOf] | None = None

    def keep_in(self, stores: Stores) -> None:
        """Keep states there; before the app starts."""
        self._stores = stores
        self.shelves = Shelves(stores)

    def guard(self, writer: str, headers_of: HeadersOf, null_of: NullOf = no_null) -> None:
        """Write over what others write; `writer` is what our states have as `casewire-writer`."""
        self._guarded = (writer, headers_of, null_of)

    def changes(self, batch: Work) -> "Changes":
        """Return what the batch is to change. It finishes after the batches before it that did.

        An agent that reads two topics gets batches of both; a store must take their changes in
        the order of the changelog. Of two tables, the first that is asked makes the order.
        """
        if batch.chain == batch.tp:
            batch.chain = TP(self.changelog_topic_name, batch.partition)
        return Changes(self, batch)

    def persisted_offset(self, tp: TP) -> int:
        """Return the last offset that recovery need not read."""
        mark = self.shelves.mark(tp.partition)
        return -1 if mark is None else mark.offset

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Store what recovery, or a standby, has read.

        A worker that crashes by it is given it once more when it stops.
        """
        if self.app.crash_reason is not None:
            return
        try:
            for event in batch:
                self.shelves.apply(event.value.partition, event.value.records)
        except WorkerError as error:  # Faust would log it and go on
            self.add_future(self.app.crash(error))
            raise

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Hold the partitions that this worker owns or follows now, as far as their stores go."""
        topic = self.changelog_topic_name
        actives = self.app.assignor.assigned_actives()
        followed, owned = (
            {tp.partition for tp in tps if tp.topic == topic} for tps in (assigned, actives)
        )
        marks = self.shelves.assign(followed, owned)
        found = await self.changelog.reader.first({n: mark.offset for n, mark in marks.items()})
        for number, mark in marks.items():
            if not mark.followed_by(found.get(number)):
                _log.warning(
                    "a table is read from the beginning", table=self.name, partition=number
                )
                self.shelves.empty(number)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        read = self.shelves.recovered()
        _log.info("a table is recovered", table=self.name, partitions=len(active_tps), count=read)

    async def on_start(self) -> None:
        await super().on_start()
        self.changelog = Changelog(self.app, self.changelog_topic_name)
        await self.add_runtime_dependency(EmptyTail(self.app))
        if self._guarded is not None:
            await self.add_runtime_dependency(Guard(self.changelog, self.shelves, *self._guarded))

    async def on_stop(self) -> None:
        self.shelves.assign((), ())
        self._stores.close()
        await self.changelog.reader.stop()
        await super().on_stop()


@dataclass(slots=True)
class Changes:
    """What one batch changes in a table: reads see earlier writes at once."""

    table: BatchTable
    batch: Work
    log: list[Out] = field(default_factory=list)
    stored: list[tuple[bytes, bytes | None]] = field(default_factory=list)

    def get(self, key: bytes) -> bytes | None:
        held = self.table.shelves.get(self.batch.partition, key)
        return None if held is None else held[VERSION_BYTES:]

    def put(self, key: bytes, value: bytes | None, headers: Headers) -> None:
        """Set the value of a key (None deletes it). Its version is that of the headers."""
        stored = None if value is None else packed(version_of(headers), value)
        self.table.shelves.unsent[key] = stored
        self.log.append(Out(key, value, headers))
        self.stored.append((key, stored))

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
        start = 0
        for sent, count in await table.changelog.send(tp.partition, self.log):
            batch.after(sent, partial(self._sent, tp.partition, start, start + count))
            start += count

    def _sent(self, partition: int, start: int, stop: int, result: Any) -> None:
        self.table.shelves.wrote(partition, result.offset, self.stored[start:stop])


def work_on(table: BatchTable, partition: int) -> Work:
    """Return work on a table's partition that follows from no batch."""
    work = Work(TP(table.changelog_topic_name, partition))
    work.bind(table.app)
    return work
