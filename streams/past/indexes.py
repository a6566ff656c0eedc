"""The indexes of the partitions that a worker holds, and how far each one is."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from schemas.settings import KafkaSettings
from schemas.times import canonical, to_microseconds
from streams.past.index import Entry, Index, discard
from streams.past.reads import Partition
from streams.records import Record, header

#: The numbers of the topics in an index are their places here.
TOPICS: Final = ("cases", "case-changes")

logger = logging.getLogger(__name__)


class Indexes:
    """Files of `folder`, one a partition, of `casewire.cases` and `casewire.case-changes`."""

    def __init__(self, kafka: KafkaSettings, folder: Path) -> None:
        self._kafka = kafka
        self._folder = folder
        self._open: dict[int, Index] = {}
        self._damaged: set[int] = set()
        self.next: dict[Partition, int] = {}  # up to where (exclusive) each is indexed

    def file(self, partition: int) -> Path:
        return self._folder / f"{partition}.db"

    def places(self, partition: int) -> Sequence[Partition]:
        """Return the partitions of the two topics, in the order of `TOPICS`."""
        return [Partition(self._kafka.topic(name), partition) for name in TOPICS]

    def behind(self, ends: Mapping[Partition, int]) -> int | None:
        """Return how many records before these ends are not indexed yet, None if nobody knows."""
        if any(place not in self.next for place in ends):
            return None
        return sum(max(0, end - self.next[place]) for place, end in ends.items())

    def damaged(self, partition: int) -> None:
        """Note that an index does not fit its topics: it is made anew as soon as may be."""
        self._damaged.add(partition)

    def ready(self, partitions: Sequence[int]) -> bool:
        """Whether exactly these are open, and none is damaged."""
        return not self._damaged and self._open.keys() == set(partitions)

    async def open(self, partitions: Sequence[int], ends: Mapping[Partition, int]) -> None:
        """Have these open and no others; `ends` are where their topics end now."""
        for partition in self._open.keys() - (set(partitions) - self._damaged):
            self._close(partition)
        for partition in self._damaged:
            discard(self.file(partition))
        self._damaged.clear()
        for partition in partitions:
            await self._open_one(partition, ends)

    async def add(self, place: Partition, records: Sequence[Record]) -> None:
        """Index records of a partition that come next there."""
        number = self.places(place.number).index(place)
        position = records[-1].offset + 1
        entries = [(r.key or b"", Entry(captured_time(r), number, r.offset)) for r in records]
        await asyncio.to_thread(self._open[place.number].add, entries, {number: position})
        self.next[place] = position

    async def forget(self, starts: Mapping[Partition, int]) -> None:
        """Drop what lies before the offsets at which the topics begin now."""
        for partition, index in self._open.items():
            by_number = {n: starts[place] for n, place in enumerate(self.places(partition))}
            await asyncio.to_thread(index.forget, by_number)

    def close(self) -> None:
        for partition in list(self._open):
            self._close(partition)

    async def _open_one(self, partition: int, ends: Mapping[Partition, int]) -> None:
        if partition not in self._open:
            self._open[partition] = await asyncio.to_thread(Index, self.file(partition))
        positions = await asyncio.to_thread(self._open[partition].positions)
        found = {place: positions.get(n, 0) for n, place in enumerate(self.places(partition))}
        if any(position > ends[place] for place, position in found.items()):
            logger.warning("the index of partition %s is of other topics; made anew", partition)
            self._close(partition)
            discard(self.file(partition))
            await self._open_one(partition, ends)
        else:
            self.next |= found

    def _close(self, partition: int) -> None:
        for place in self.places(partition):
            self.next.pop(place, None)
        self._open.pop(partition).close()


def captured_time(record: Record) -> int:
    """Return when the event of a record was captured, in microseconds since 1970; 0 if unknown."""
    text = canonical(header(record.headers, "ce_time") or "")
    return to_microseconds(text) if text is not None else 0
