"""How far a worker is behind what it reads: in records, and in seconds.

The age of the oldest record that is not committed is told by that record itself. Mostly it has been
fetched and waits for its turn; where it has not (a recovery takes long, the queue is full of other
partitions' batches) that one record is read beside the worker's own consumer.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import faust
import structlog
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from schemas.errors import named
from streams.past.reads import Partition, RecordReader

#: How often to ask where the partitions end.
LOOK_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 10.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message with a batch that was handed to its agent and is not committed yet.

    `since`: when that was, by the monotonic clock. The message's time is that of its first record.
    """

    message: Any
    since: float


@dataclass(frozen=True, slots=True)
class Behind:
    """`seconds`: the age of the oldest record that is not committed, 0 if there is none."""

    events: int = 0
    seconds: float = 0.0


def behind(end: int, committed: int, oldest: float | None, now: float) -> Behind:
    """Return how far a partition is behind; the seconds are 0 while nobody knows its record.

    `oldest` is the time of the first record that is not committed; times in seconds since 1970.
    """
    events = max(0, end - committed)
    if not events or oldest is None:
        return Behind(events)
    return Behind(events, max(0.0, now - oldest))


def client_of(app: Any) -> dict[str, Any]:
    """Return the arguments that every client of aiokafka's needs, from a Faust app's settings."""
    servers = ",".join(f"{url.host}:{url.port}" for url in app.conf.broker_consumer)
    login = driver.credentials_to_aiokafka_auth(app.conf.broker_credentials)
    return {"bootstrap_servers": servers, **login}


class Lag(faust.Service):
    """Follows the ends of the partitions that a BatchConsumer reads for its agents."""

    def __init__(self, consumer: Any) -> None:
        super().__init__()
        self._consumer = consumer
        self._reader = RecordReader(client_of(consumer.app))
        self._starts: dict[TP, int] = {}
        self._ends: dict[TP, int] = {}
        self._oldest: dict[TP, tuple[int, float]] = {}  # place and time of a record that was read

    def places(self) -> Mapping[TP, Behind]:
        """Return how far each partition of this worker is behind now."""
        now = time.time()
        return {tp: self._behind(tp, now) for tp in self._consumer.sources()}

    def commit_age(self) -> float:
        """Return for how many seconds the oldest batch that was fetched has not been committed."""
        waiting = [pending[0].since for pending in self._consumer.pending.values() if pending]
        return time.monotonic() - min(waiting) if waiting else 0.0

    def _behind(self, tp: TP, now: float) -> Behind:
        committed = self._committed(tp)
        end = self._ends.get(tp, committed)
        if pending := self._consumer.pending.get(tp):
            last = pending[-1].message.offset
            return behind(max(end, last + 1), committed, pending[0].message.timestamp, now)
        place, oldest = self._oldest.get(tp, (-1, 0.0))
        return behind(end, committed, oldest if place == committed else None, now)

    @faust.Service.task
    async def _follow(self) -> None:
        async for _ in self.itertimer(LOOK_SECONDS, name="lag"):
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await self._look()
            except (KafkaError, TimeoutError) as error:
                _log.info("where partitions end cannot be asked now", **named(error))

    async def on_stop(self) -> None:
        await self._reader.stop()
        await super().on_stop()

    async def _look(self) -> None:
        sources = self._consumer.sources()
        spans = await self._reader.spans([Partition(*tp) for tp in sources])
        self._starts = {TP(*place): span.start for place, span in spans.items()}
        self._ends = {TP(*place): span.end for place, span in spans.items()}
        unknown = {
            Partition(*tp): committed
            for tp in sources
            if not self._consumer.pending.get(tp)
            and (committed := self._committed(tp)) < self._ends[tp]
            and self._oldest.get(tp, (-1, 0))[0] != committed
        }
        for place, record in (await self._reader.first(unknown)).items():
            self._oldest[TP(*place)] = (unknown[place], record.timestamp / 1000)

    def _committed(self, tp: TP) -> int:
        """Return the first offset that is not committed; of those that are kept, the first."""
        committed: int = self._consumer.committed(tp)
        return max(committed, self._starts.get(tp, 0))
