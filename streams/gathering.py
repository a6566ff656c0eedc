"""Batches of partitions put together to what one write takes, while the write before goes on."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from typing import Final, Generic, Protocol, TypeVar

from streams.records import Record

#: What lies in the agent's queue takes a few turns of the event loop to come.
_AT_HAND_SECONDS: Final = 0.005
#: While a group is written no more than this is read of the next: both are in memory.
_AHEAD_ROWS: Final = 2000


class Read(Protocol):
    """Records that were read together."""

    @property
    def records(self) -> Sequence[Record]: ...


R = TypeVar("R", bound=Read)


class Gathering:
    """Gathers batches until they hold `rows` records or `size` bytes, or for `seconds`.

    With 0 seconds nothing waits: whatever came while the last write went on is the next one.
    `waiting` says that it waits on purpose, with records at hand.
    """

    def __init__(self, *, rows: int, size: int, seconds: float) -> None:
        self._rows = rows
        self._size = size
        self._seconds = max(seconds, _AT_HAND_SECONDS)
        self.waiting = False

    async def groups(self, batches: AsyncIterator[R]) -> AsyncGenerator[Sequence[R], None]:
        """Yield groups of batches, in the order in which they came.

        Between two groups it goes on reading: at most a part of the next and one more batch.
        """
        shelf = _Shelf[R](self._rows, self._size)
        filling = asyncio.ensure_future(shelf.fill(batches))
        try:
            while await shelf.some():
                self.waiting = True
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(shelf.since + self._seconds):
                        await shelf.full.wait()
                self.waiting = False
                yield shelf.take()
            await filling
        finally:
            self.waiting = False
            filling.cancel()


class _Shelf(Generic[R]):
    """What was read and is not taken yet; `since` is when the first of it came (loop's time)."""

    def __init__(self, rows: int, size: int) -> None:
        self.since = 0.0
        self.full = asyncio.Event()
        self._come = asyncio.Event()
        self._room = asyncio.Event()
        self._batches: list[R] = []
        self._rows, self._bytes = rows, size
        self._left = (rows, size)
        self._idle = True
        self._ended = False
        self._room.set()

    async def fill(self, batches: AsyncIterator[R]) -> None:
        """Put batches there as long as there is room."""
        try:
            async for batch in batches:
                await self._room.wait()
                self._put(batch)
        finally:
            self._ended = True
            self._come.set()
            self.full.set()

    async def some(self) -> bool:
        """Wait for a batch; return whether there is one, or will never be."""
        self._idle = True
        self._look()
        await self._come.wait()
        return bool(self._batches)

    def take(self) -> Sequence[R]:
        taken, self._batches = self._batches, []
        self._left = (self._rows, self._bytes)
        self._idle = False
        if not self._ended:
            self._come.clear()
            self.full.clear()
        self._room.set()
        return taken

    def _put(self, batch: R) -> None:
        if not self._batches:
            self.since = asyncio.get_running_loop().time()
        self._batches.append(batch)
        rows, size = self._left
        size -= sum(len(record.value or b"") for record in batch.records)
        rows -= len(batch.records)
        self._left = (rows, size)
        self._come.set()
        self._look()

    def _look(self) -> None:
        """Note whether there is room."""
        rows, size = self._left
        if min(rows, size) <= 0:
            self.full.set()
            self._room.clear()
        elif self._idle or self._rows - rows < _AHEAD_ROWS:
            self._room.set()
        else:
            self._room.clear()
