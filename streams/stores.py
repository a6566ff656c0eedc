"""Where a table keeps its states: a store for each changelog partition, in memory or on disk.

A store holds values behind their versions (`packed`), and a mark of how far it follows its
changelog, written together with them.
"""

import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, Protocol, Self, TypeAlias

VERSION_BYTES: Final = 8
#: A changelog forgets that a key was deleted 30 days after that (`delete.retention.ms`).
TRUSTED_MS: Final = 20 * 24 * 60 * 60 * 1000
_MARK: Final = struct.Struct(">qIq")

Stored: TypeAlias = tuple[bytes, bytes]
"""A key, and its value behind its version."""


def packed(version: int, value: bytes) -> bytes:
    """Return a value as stores have it, behind its version."""
    return version.to_bytes(VERSION_BYTES, "big") + value


def version_in(stored: bytes) -> int:
    return int.from_bytes(stored[:VERSION_BYTES], "big")


@dataclass(frozen=True, slots=True)
class Mark:
    """The last record of its changelog that a store holds, and when that was written.

    `checksum` is of its key and value: it tells whether a log has the same record at that offset.
    """

    offset: int
    checksum: int
    time_ms: int

    @classmethod
    def at(cls, offset: int, key: bytes, value: bytes | None, time_ms: int | None = None) -> Self:
        """Return the mark of a record; of one that was written just now without `time_ms`."""
        checksum = zlib.crc32(value or b"", zlib.crc32(key))
        return cls(offset, checksum, time.time_ns() // 1_000_000 if time_ms is None else time_ms)

    @classmethod
    def of(cls, record: Any) -> Self:
        """Return the mark of a record as it was read."""
        return cls.at(record.offset, record.key or b"", record.value, record.timestamp)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        return cls(*_MARK.unpack(data))

    def to_bytes(self) -> bytes:
        return _MARK.pack(self.offset, self.checksum, self.time_ms)

    def followed_by(self, record: Any) -> bool:
        """Whether what the store holds can be built upon.

        `record` is the changelog's first at the mark or behind it. If it is another one, the log
        was compacted past the mark, cut, or made anew; and what follows it to a moment too long
        ago may hold keys of whose deletion the log does not know any more.
        """
        age = time.time_ns() // 1_000_000 - self.time_ms
        return (
            age < TRUSTED_MS
            and record is not None
            and Mark.of(record) == replace(self, time_ms=record.timestamp)
        )


@dataclass(frozen=True, slots=True)
class Size:
    """How many states there are, and the bytes of files that they are in. Estimates on disk."""

    states: int = 0
    disk_bytes: int = 0

    def __add__(self, other: "Size") -> "Size":
        return Size(self.states + other.states, self.disk_bytes + other.disk_bytes)


class Store(Protocol):
    """The states of one changelog partition."""

    @property
    def mark(self) -> Mark | None: ...

    def get(self, key: bytes) -> bytes | None: ...

    def write(self, changes: Mapping[bytes, bytes | None], mark: Mark | None) -> None:
        """Write all or nothing. A None deletes; without a mark the last one stays.

        Raises StoreError.
        """

    def slices(self, size: int) -> Iterator[Sequence[Stored]]:
        """Yield what is held, `size` keys at a time, each slice as it is when its turn comes."""

    def size(self) -> Size: ...


class Stores(Protocol):
    """The stores of one table."""

    def open(self, partition: int) -> Store:
        """Return the store of a partition, with what it held if that is still there.

        Raises StoreError.
        """

    def empty(self, partition: int) -> Store:
        """Return the store of a partition after everything in it was thrown away."""

    def close(self) -> None: ...


class MemoryStore:
    def __init__(self) -> None:
        self.mark: Mark | None = None
        self._data: dict[bytes, bytes] = {}
        self.get = self._data.get

    def write(self, changes: Mapping[bytes, bytes | None], mark: Mark | None) -> None:
        data = self._data
        for key, value in changes.items():
            if value is not None:
                data[key] = value
            else:
                data.pop(key, None)
        self.mark = mark or self.mark

    def slices(self, size: int) -> Iterator[Sequence[Stored]]:
        keys = iter(list(self._data))
        while some := list(islice(keys, size)):
            pairs = ((key, self._data.get(key)) for key in some)
            yield [(key, value) for key, value in pairs if value is not None]

    def size(self) -> Size:
        return Size(len(self._data))


class MemoryStores:
    """Stores that are empty whenever they are opened."""

    def open(self, partition: int) -> Store:
        return MemoryStore()

    def empty(self, partition: int) -> Store:
        return MemoryStore()

    def close(self) -> None:
        """Nothing is held that outlives the stores."""
