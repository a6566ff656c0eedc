"""The overview's figures for whoever looks, from one watch for all."""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from casewire.ledger import DELIVERIES
from casewire.overview import Overview, Reader, Watch
from casewire.progress import end_offsets
from casewire.reading import read_topic
from schemas.delivery import BatchDelivery
from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from schemas.times import from_microseconds
from streams.records import header

#: Several people look at the same figures.
_FRESH_SECONDS: Final = 1.5
#: Rates since an earlier look than this would say nothing of now.
_STALE_SECONDS: Final = 20.0
_RATE_SECONDS: Final = 1.0
#: Entries of the ledger, of each partition, that are looked at for what was written last.
_LATEST_ENTRIES: Final = 500


@dataclass(slots=True)
class Figures:
    """Looks when it is asked. `sinks` maps their names to the topics that they read."""

    kafka: KafkaSettings
    sinks: Mapping[str, Sequence[str]]
    _watch: Watch | None = None
    _latest: Overview | None = None
    _looked_at: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def look(self) -> Overview:
        """Return what goes on now, with rates. Raises UnavailableError."""
        async with self._lock:
            age = time.monotonic() - self._looked_at
            if self._latest is not None and age < _FRESH_SECONDS:
                return self._latest
            try:
                if self._latest is None or age > _STALE_SECONDS:
                    await self._look()
                    await asyncio.sleep(_RATE_SECONDS)
                return await self._look()
            except UnavailableError:
                await self._close()
                raise

    async def _look(self) -> Overview:
        if self._watch is None:
            self._watch = await Watch(self.kafka, self.sinks).__aenter__()
        self._latest = await self._watch.look()
        self._looked_at = time.monotonic()
        return self._latest

    async def close(self) -> None:
        async with self._lock:
            await self._close()

    async def _close(self) -> None:
        watch, self._watch, self._latest = self._watch, None, None
        if watch is not None:
            with contextlib.suppress(UnavailableError):
                await watch.__aexit__(None, None, None)

    async def last_written(self) -> Mapping[str, str]:
        """Return when each sink wrote last, by its name, as far as the latest entries tell."""
        ends = await end_offsets(self.kafka, [self.kafka.topic(DELIVERIES)])
        since = {number: max(0, end - _LATEST_ENTRIES) for (_, number), end in ends.items()}
        last: dict[str, int] = {}
        async for record in read_topic(self.kafka, DELIVERIES, since=since):
            if header(record.headers, "casewire-schema") == "batch-delivery/1":
                batch = BatchDelivery.from_json(record.value or b"")
                if batch.counts.get("written"):
                    name = batch.stage.removeprefix("sink:")
                    last[name] = max(last.get(name, 0), record.timestamp)
        return {name: from_microseconds(time_ms * 1000) for name, time_ms in last.items()}


@dataclass(frozen=True, slots=True)
class Step:
    """How a role gets on with all that it reads: `lag` records, the oldest of `seconds` age."""

    role: str
    lag: int
    seconds: float
    per_second: float | None


def steps(readers: Iterable[Reader]) -> Mapping[str, Step]:
    """Return each role's step, in the order in which the roles come."""
    found: dict[str, Step] = {}
    for reader in readers:
        before = found.get(reader.role, Step(reader.role, 0, 0.0, None))
        rates = [rate for rate in (before.per_second, reader.per_second) if rate is not None]
        found[reader.role] = Step(
            reader.role,
            before.lag + reader.lag,
            max(before.seconds, reader.lag_seconds),
            sum(rates) if rates else None,
        )
    return found
