"""The indexes of the partitions that a worker holds, and how far each one is."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from schemas.settings import KafkaSettings
from schemas.times import canonical, to_microseconds
from streams.past.index import Entry, Index, discard
from streams.past.reads import Partition
from streams.records import Record, header

#: The numbers of the topics in an index are their places here.
TOPICS: Final = ("cases", "case-changes")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Layout:
    """Which partitions an index is of, and which file of `folder` it is in."""

    kafka: KafkaSettings
    folder: Path

    def file(self, partition: int) -> Path:
        return self.folder / f"{partition}.db"

    def places(self, partition: int) -> Sequence[Partition]:
        """Return the partitions of the two topics, in the order of `TOPICS`."""
        return [Partition(self.kafka.topic(name), partition) for name in TOPICS]


class Indexes:
    """One file a partition, of `casewire.cases` and `casewire.case-changes`."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.next: dict[Partition, int] = {}  # up to where (exclusive) each is indexed
        self._open: dict[int, Index] = {}
        self._damaged: set[int] = set()

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
            discard(self.layout.file(partition))
        self._damaged.clear()
        for partition in partitions:
            await self._open_one(partition, ends)

    async def add(self, fetched: Mapping[Partition, Sequence[Record]]) -> None:
        """Index records that come next in their partitions."""
        await asyncio.to_thread(_add, self.layout, self._open, fetched)
        self.next |= {place: records[-1].offset + 1 for place, records in fetched.items()}

    async def forget(self, starts: Mapping[Partition, int]) -> None:
        """Drop what lies before the offsets at which the topics begin now."""
        for partition, index in self._open.items():
            by_number = {n: starts[place] for n, place in enumerate(self.layout.places(partition))}
            await asyncio.to_thread(index.forget, by_number)

    def close(self) -> None:
        for partition in list(self._open):
            self._close(partition)

    async def _open_one(self, partition: int, ends: Mapping[Partition, int]) -> None:
        if partition not in self._open:
            self._open[partition] = await asyncio.to_thread(Index, self.layout.file(partition))
        positions = await asyncio.to_thread(self._open[partition].positions)
        found = {
            place: positions.get(n, 0) for n, place in enumerate(self.layout.places(partition))
        }
        if any(position > ends[place] for place, position in found.items()):
            _log.warning("an index is of other topics and made anew", partition=partition)
            self._close(partition)
            discard(self.layout.file(partition))
            await self._open_one(partition, ends)
        else:
            self.next |= found

    def _close(self, partition: int) -> None:
        for place in self.layout.places(partition):
            self.next.pop(place, None)
        self._open.pop(partition).close()


def _add(
    layout: Layout,
    indexes: Mapping[int, Index],
    fetched: Mapping[Partition, Sequence[Record]],
) -> None:
    for partition in {place.number for place in fetched}:
        entries: list[tuple[bytes, Entry]] = []
        positions: dict[int, int] = {}
        for number, place in enumerate(layout.places(partition)):
            for record in fetched.get(place, ()):
                entry = Entry(captured_time(record), number, record.offset)
                entries.append((record.key or b"", entry))
                positions[number] = record.offset + 1
        indexes[partition].add(entries, positions)


def captured_time(record: Record) -> int:
    """Return when the event of a record was captured, in microseconds since 1970; 0 if unknown."""
    text = canonical(header(record.headers, "ce_time") or "")
    return to_microseconds(text) if text is not None else 0
