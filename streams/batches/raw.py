"""Fetched record batches as records, without the objects that aiokafka makes on the way.

aiokafka makes of each record three objects and of each header a tuple. Recovery reads a million
records of twenty headers and needs of each its key, its value and its version; a sink needs not
much more. So these are read here, and their headers stay bytes until somebody asks: 3 µs a record
instead of 14, and a fifth of the memory. Where all headers are needed aiokafka's own reading, which
is compiled, is faster than any in Python.

The frame of a batch stays aiokafka's: checksum, compression, aborted transactions, positions.
tests/streams/test_raw.py compares what is read, and fails when an upgrade changes what is leant on.

Record => Length Attributes TimestampDelta OffsetDelta Key Value [HeaderKey HeaderValue], with
zigzag varints for numbers, lengths and counts (kafka.apache.org/documentation/#record).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import FunctionType, MethodType
from typing import Any, Final, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy

from schemas.envelope import Headers

_MAGIC: Final = 2
_MAGIC_PLACE: Final = 16
_CONTINUED: Final = 0x80
#: A named tuple's own way takes three times as long.
_new: Final = tuple.__new__


class Read(NamedTuple):
    """A record as it was read; `timestamp` in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class HeaderBlock(Sequence[tuple[str, bytes]]):
    """So many headers (`size`), as they are written (`body`): read anew by each who asks.

    To come to the first of them costs little. Raises CorruptRecordException if they are none.
    """

    __slots__ = ("body", "size")

    def __init__(self, size: int, body: bytes) -> None:
        self.size = size
        self.body = body

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place: Any) -> Any:
        return list(self)[place]

    def __reversed__(self) -> Iterator[tuple[str, bytes]]:
        return reversed(list(self))

    def likely(self, name: str) -> bytes | None:
        """Return the first value of a name of less than 64 bytes, without reading what is before.

        A value that holds a header as it is written is taken for that header.
        """
        wanted = _written(name)
        place = self.body.find(wanted)
        try:
            return None if place < 0 else _bytes(self.body, place + len(wanted))[0]
        except IndexError:  # it was the end of a value
            return None

    def first(self, written: bytes) -> bytes | None:
        """Return the value of the first header if its name is this, and both are short.

        `written` is the name behind its length (twice that), as it is written.
        """
        body, place = self.body, len(written)
        if not body.startswith(written) or body[place] >= _CONTINUED:
            return None
        return body[place + 1 : place + 1 + (body[place] >> 1)]

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        body, place = self.body, 0
        try:
            for _ in range(self.size):
                size = body[place]
                if size < _CONTINUED and not size & 1:  # nearly all names are so short
                    place, start = place + 1 + (size >> 1), place + 1
                    name = body[start:place]
                else:
                    name, place = _bytes(body, place)
                value, place = _bytes(body, place)
                yield name.decode(), value
        except (AttributeError, IndexError, UnicodeDecodeError) as error:
            raise CorruptRecordException("a record's headers are malformed") from error


@cache
def _written(name: str) -> bytes:
    return bytes([2 * len(name)]) + name.encode()


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the number at a place, and the place behind it. Raises IndexError."""
    found = data[place]
    place += 1
    if found >= _CONTINUED:
        found &= 0x7F
        shift = 7
        while True:
            byte = data[place]
            place += 1
            found |= (byte & 0x7F) << shift
            if byte < _CONTINUED:
                break
            shift += 7
    return (found >> 1) ^ -(found & 1), place


def _bytes(data: bytes, place: int) -> tuple[Any, int]:
    """Return the bytes, or the null, behind their length, and the place behind them."""
    size = data[place]
    if size < _CONTINUED and not size & 1:  # most are so short
        place += 1
        end = place + (size >> 1)
        return data[place:end], end
    size, place = _varint(data, place)
    if size < 0:
        return None, place
    end = place + size
    return data[place:end], end


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc, no-any-unimported]
    """A record batch of a partition; iterates over its records."""

    def __init__(self, data: memoryview, tp: Any) -> None:
        if data[_MAGIC_PLACE] != _MAGIC:
            raise CorruptRecordException(f"{tp} has records of a format from before Kafka 0.11")
        super().__init__(data)
        self._tp = tp

    def __iter__(self) -> Iterator[Read]:
        self._maybe_uncompress()
        try:
            yield from self._records(bytes(self._buffer), self._pos)
        except IndexError as error:
            raise CorruptRecordException(f"{self._tp} has a malformed record batch") from error

    def _records(self, data: bytes, place: int) -> Iterator[Read]:
        topic, partition = self._tp
        base, first = self.base_offset, self.first_timestamp
        appended = self.max_timestamp if self.timestamp_type == self.LOG_APPEND_TIME else None
        for _ in range(self._num_records):
            size, place = _varint(data, place)
            end = place + size
            delta, place = _varint(data, place + 1)  # the attributes are unused
            number, place = _varint(data, place)
            key, place = _bytes(data, place)
            value, place = _bytes(data, place)
            count, place = _varint(data, place)
            headers = HeaderBlock(count, data[place:end])
            stamp = first + delta if appended is None else appended
            yield _new(Read, (topic, partition, base + number, stamp, key, value, headers))
            place = end
        if place != len(data):
            raise CorruptRecordException(f"{self._tp} has bytes behind a record batch's records")


class Batches(_MemoryRecordsPy):  # type: ignore[misc, no-any-unimported]
    """What a fetch brought of one partition; `tp` is set before it is read."""

    tp: Any = None

    @property
    def data(self) -> bytes:
        data: bytes = self._buffer
        return data

    def next_batch(self) -> _Batch:
        data: Any = self._next_slice
        self._cache_next()
        return _Batch(data, self.tp)


class Records(fetcher.PartitionRecords):  # type: ignore[misc, no-any-unimported]
    """The records that a fetch brought of one partition, each a tuple.

    From the position on, and without those of aborted transactions.
    """

    def __iter__(self) -> Any:
        return self._records_iterator

    def _consumer_record(self, tp: Any, record: Any) -> Read:
        offset, timestamp = record.offset, record.timestamp
        found = (tp.topic, tp.partition, offset, timestamp, record.key, record.value)
        return _new(Read, (*found, record.headers))


class RawRecords(Records):
    """The same, with their headers as bytes."""

    def __init__(self, tp: Any, batches: Batches, *more: Any) -> None:
        batches.tp = tp
        super().__init__(tp, batches, *more)

    def _consumer_record(self, _tp: Any, record: Read) -> Read:
        return record


def read_raw(consumer: Any, raw: Callable[[str], bool]) -> None:
    """Have a started consumer leave the headers of records as bytes where a topic is to be `raw`.

    Other consumers of the process read as they did.
    """

    def made(tp: Any, batches: Batches, *more: Any) -> Any:
        if raw(tp.topic):
            return RawRecords(tp, batches, *more)
        return Records(tp, MemoryRecords(batches.data), *more)

    ours = {**vars(fetcher), "MemoryRecords": Batches, "PartitionRecords": made}
    method = FunctionType(fetcher.Fetcher._proc_fetch_request.__code__, ours)  # noqa: SLF001
    consumer._fetcher._proc_fetch_request = MethodType(method, consumer._fetcher)  # noqa: SLF001
