"""What a table holds: states by changelog partition, and how far they follow the changelog."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streams.fence import Ends, Gap, version_of
from streams.formats import require_all_readable
from streams.stores import VERSION_BYTES, Mark, Size, Store, Stored, Stores, packed, version_in


@dataclass(slots=True)
class Shelf:
    """`end`: all records below it are in the store.

    `beneath`: keys of which the changelog has a lower version behind the one that is held, written
    by a worker that was frozen (streams/fence.py), and that record's offset.
    """

    store: Store
    end: int
    beneath: dict[bytes, int] = field(default_factory=dict)


class Shelves:
    """States behind their versions, of the partitions that this worker follows or owns.

    A store's mark stays where it is while something foreign behind it waits to be looked at or
    written over: after a crash that part is read again. States may be ahead of their mark; reading
    on from there changes nothing, since a lower version than is held is ignored.
    """

    def __init__(self, stores: Stores) -> None:
        self.unsent: dict[bytes, bytes | None] = {}  # not yet acknowledged by the broker
        self.ends = Ends()
        self._stores = stores
        self._shelves: dict[int, Shelf] = {}
        self._owned: Collection[int] = ()
        self._read = 0

    def assign(self, followed: Collection[int], owned: Collection[int]) -> Mapping[int, Mark]:
        """Hold just the partitions of `followed`; those of `owned` are written by this worker.

        Returns the marks of stores that were opened with something in them. Raises StoreError.
        """
        self._owned = owned
        self._read = 0
        self.ends.lost(self.ends.known.keys() - set(owned))
        self._shelves = {n: held for n, held in self._shelves.items() if n in followed}
        opened = {}
        for number in set(followed) - self._shelves.keys():
            store = self._stores.open(number)
            self._shelves[number] = Shelf(store, _end(store.mark))
            if store.mark is not None:
                opened[number] = store.mark
        return opened

    def empty(self, number: int) -> None:
        """Begin a partition anew: what is held is not what its changelog says."""
        self._shelves[number] = Shelf(self._stores.empty(number), 0)

    def get(self, number: int, key: bytes) -> bytes | None:
        """Return what is held for a key, behind its version; sent or not."""
        if key in self.unsent:
            return self.unsent[key]
        return self.stored(number, key)

    def stored(self, number: int, key: bytes) -> bytes | None:
        """Return what the broker has acknowledged for a key, behind its version."""
        held = self._shelves.get(number)
        return held.store.get(key) if held is not None else None

    def mark(self, number: int) -> Mark | None:
        held = self._shelves.get(number)
        return held.store.mark if held is not None else None

    def apply(self, number: int, records: Sequence[Any]) -> None:
        """Store what was read from the changelog; a lower version is ignored.

        Raises StoreError, and NewerFormError before anything is stored.
        """
        held = self._shelves.get(number)
        if held is None:
            return  # it has another owner now
        require_all_readable(records)
        changes: dict[bytes, bytes | None] = {}
        for record in records:
            key, version = record.key, version_of(record.headers)
            before = changes[key] if key in changes else held.store.get(key)
            if before is not None and version < version_in(before):
                held.beneath.setdefault(key, record.offset)
                continue
            changes[key] = None if record.value is None else packed(version, record.value)
            if held.beneath:
                held.beneath.pop(key, None)
        self._read += len(records)
        held.end = max(held.end, records[-1].offset + 1)
        self._write(number, held, changes, Mark.of(records[-1]))

    def recovered(self) -> int:
        """Note that the owned partitions have been read to their ends.

        Returns how many records were read for that, of followed partitions too.
        """
        for number in self._owned:
            held = self._shelves[number]
            self.ends.recovered(number, held.end)
            self.ends.gaps += [Gap(number, at, at + 1) for at in held.beneath.values()]
            held.beneath.clear()
        return self._read

    def wrote(self, number: int, first: int, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Store what the broker has acknowledged at offset `first` and behind it.

        Raises StoreError.
        """
        held = self._shelves.get(number)
        if held is not None:
            key, stored = changes[-1]
            last = first + len(changes) - 1
            self.ends.wrote(number, first, len(changes))
            held.end = max(held.end, last + 1)
            value = None if stored is None else stored[VERSION_BYTES:]
            self._write(number, held, dict(changes), Mark.at(last, key, value))
        for key, stored in changes:
            if self.unsent.get(key, self.unsent) is stored:  # else it was changed again
                del self.unsent[key]

    def slices(self, size: int) -> Iterator[Sequence[Stored]]:
        """Yield the states of the owned partitions, `size` at a time, as they are at that time."""
        for number in list(self._owned):
            held = self._shelves.get(number)
            if held is not None:
                yield from held.store.slices(size)

    def size(self) -> Size:
        """Return the size of the partitions that are followed or owned."""
        return sum((held.store.size() for held in self._shelves.values()), Size())

    def _write(
        self, number: int, held: Shelf, changes: Mapping[bytes, bytes | None], mark: Mark
    ) -> None:
        waits = held.beneath or any(gap.partition == number for gap in self.ends.gaps)
        held.store.write(changes, None if waits else mark)


def _end(mark: Mark | None) -> int:
    return 0 if mark is None else mark.offset + 1
