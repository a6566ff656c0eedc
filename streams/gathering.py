"""Batches of partitions put together to what one write takes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final

from streams.batches.batch import Batch

#: What lies in the agent's queue takes a few turns of the event loop to come.
_AT_HAND_SECONDS: Final = 0.005


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

    async def groups(self, batches: AsyncIterator[Batch]) -> AsyncGenerator[Sequence[Batch], None]:
        """Yield groups of batches, in the order in which they came."""
        upcoming = asyncio.ensure_future(_next(batches))
        try:
            while (first := await upcoming) is not None:
                upcoming = asyncio.ensure_future(_next(batches))
                group = [first]
                until = asyncio.get_running_loop().time() + self._seconds
                self.waiting = True
                rows, size = _amount(first)
                while rows < self._rows and size < self._size and await _came(upcoming, until):
                    batch = upcoming.result()
                    if batch is None:
                        break
                    group.append(batch)
                    more_rows, more_bytes = _amount(batch)
                    rows, size = rows + more_rows, size + more_bytes
                    upcoming = asyncio.ensure_future(_next(batches))
                self.waiting = False
                yield group
        finally:
            upcoming.cancel()


def _amount(batch: Batch) -> tuple[int, int]:
    """Return how many records a batch has, and their bytes."""
    return len(batch.records), sum(len(record.value or b"") for record in batch.records)


async def _next(batches: AsyncIterator[Batch]) -> Batch | None:
    return await anext(batches, None)


async def _came(upcoming: asyncio.Future[Batch | None], until: float) -> bool:
    left = until - asyncio.get_running_loop().time()
    await asyncio.wait([upcoming], timeout=max(left, 0))
    return upcoming.done()
