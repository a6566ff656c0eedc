"""The owner of a partition goes over its tables, and forgets the cases that are long gone."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from schemas.case import CaseState
from schemas.partitioner import partition_of
from streams.batches.batch import Work
from streams.batches.guard import NullOf
from streams.batches.table import BatchTable, Changes, work_on
from streams.fold import CaseFold, with_mark
from streams.records import Out
from streams.republish import fold_headers, null_again, tombstone_headers
from streams.stores import VERSION_BYTES, version_in
from streams.tombstones import Stored, due, marks_due

SWEEP_SECONDS: Final = 3600.0
READY_SECONDS: Final = 1.0
#: So many keys are looked at before others get their turn.
SLICE: Final = 1000


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Forgets gone cases of the worker's own partitions, by the same way as its agents write.

    A key on which an agent is at work is left for the next time, and so is one that an agent has
    changed before the null would be sent. The mark is safe before the state becomes null. After a
    crash between the two the state is still there, and still due.
    """

    app: Any
    states: BatchTable
    folds: BatchTable
    writer: str
    ahead: int

    async def run(self, ready: Callable[[], bool]) -> None:
        """Sweep at once and then every hour, while the tables are `ready`."""
        while True:
            is_ready = ready()
            if is_ready:
                await self.sweep(time.time_ns() // 1000)
            await asyncio.sleep(SWEEP_SECONDS if is_ready else READY_SECONDS)

    async def sweep(self, now: int) -> None:
        """Forget what is due at `now`, in microseconds since 1970."""
        async for some in _slices(self.states):
            for partition, keys in self._own(due(some, now)).items():
                await self._forget(partition, keys)
        async for some in _slices(self.folds):
            for partition, keys in self._own(marks_due(some, now)).items():
                await self._unmark(partition, keys)

    async def _forget(self, partition: int, keys: Sequence[bytes]) -> None:
        work, states, folds = self._work(partition)
        held: dict[bytes, bytes] = {}
        for key in keys:
            value = states.get(key)
            if self._busy(key) or value is None:
                continue
            held[key] = value
            self._put_fold(folds, key, with_mark(_fold(folds, key), CaseState.from_json(value)))
        await folds.send()
        await work.sent()
        for key, value in held.items():
            if key not in self.states.shelves.unsent and states.get(key) == value:
                headers = tombstone_headers(CaseState.from_json(value), self.writer)
                states.put(key, None, headers)
        await states.send()
        await work.done(self.ahead)

    async def _unmark(self, partition: int, keys: Sequence[bytes]) -> None:
        work, _, folds = self._work(partition)
        for key in keys:
            fold = _fold(folds, key)
            if fold is not None and not self._busy(key):
                self._put_fold(folds, key, CaseFold(fold.version + 1, fold.forms))
        await folds.send()
        await work.done(self.ahead)

    def _work(self, partition: int) -> tuple[Work, Changes, Changes]:
        work = work_on(self.states, partition)
        return work, self.states.changes(work), self.folds.changes(work)

    def _put_fold(self, folds: Changes, key: bytes, fold: CaseFold) -> None:
        value = fold.to_json()
        if value != folds.get(key):
            empty = not fold.forms and fold.gone is None
            headers = fold_headers(self.writer)(key, value)
            folds.put(key, None if empty else value, headers)

    def _busy(self, key: bytes) -> bool:
        return key in self.states.shelves.unsent or key in self.folds.shelves.unsent

    def _own(self, keys: Iterable[bytes]) -> Mapping[int, Sequence[bytes]]:
        """Return the keys of the partitions that this worker has now, by partition."""
        topic = self.states.changelog_topic_name
        actives = self.app.assignor.assigned_actives()
        own = {tp.partition for tp in actives if tp.topic == topic}
        by_partition: defaultdict[int, list[bytes]] = defaultdict(list)
        for key in keys:
            partition = partition_of(key, self.states.partitions or 0)
            if partition in own:
                by_partition[partition].append(key)
        return by_partition


def nulls_of(folds: BatchTable, writer: str) -> NullOf:
    """Return the function to the null of a case that was forgotten, as its fold's mark knows it."""

    def null_of(partition: int, key: bytes) -> Out | None:
        stored = folds.shelves.get(partition, key)
        fold = None if stored is None else CaseFold.from_json(stored[VERSION_BYTES:])
        return None if fold is None else null_again(key, fold, writer)

    return null_of


async def _slices(table: BatchTable) -> AsyncIterator[Sequence[Stored]]:
    """Yield what the table holds, as it is when its turn comes."""
    for some in table.shelves.slices(SLICE):
        yield [(key, version_in(stored), stored[VERSION_BYTES:]) for key, stored in some]
        await asyncio.sleep(0)


def _fold(folds: Changes, key: bytes) -> CaseFold | None:
    value = folds.get(key)
    return CaseFold.from_json(value) if value is not None else None
