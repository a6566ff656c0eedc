"""What is in the spool goes to Kafka by itself, a bounded part at a time."""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from typing import Final, Protocol

import structlog

from ingress.records import Event, captured_record
from ingress.spool import Spool
from ingress.spool_folder import Folder, Segment
from ingress.spool_format import Found, Stored, Torn
from ingress.spool_metrics import SpoolMetrics
from schemas.errors import UnavailableError, named
from schemas.topics import MEBIBYTE

#: What may be in flight from the spool at once; new events have far more room of their own.
CHUNK_EVENTS: Final = 2000
CHUNK_BYTES: Final = 4 * MEBIBYTE

_PAUSE_SECONDS: Final = 0.5
_ADOPT_SECONDS: Final = 5.0
_PROGRESS_SECONDS: Final = 1.0
_FAILURE_SECONDS: Final = 10.0
#: Offering Kafka what it refuses costs it its producer, so that is done rarely.
_REFUSED_SECONDS: Final = 60.0

_log = structlog.get_logger(__name__)


class Target(Protocol):
    """What of KafkaPublisher the drain needs."""

    def ready(self) -> str | None: ...

    async def deliver(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return those events that Kafka refuses when it has all others.

        Raises UnavailableError if Kafka cannot be reached; any of them may be written then.
        """


class Drain:
    """Takes each folder's segments in order; what Kafka refuses goes to the end of the spool."""

    def __init__(self, spool: Spool, target: Target, metrics: SpoolMetrics) -> None:
        self._spool = spool
        self._target = target
        self._metrics = metrics
        self._saved_at = 0.0
        self._refused_until: dict[str, float] = {}

    async def run(self) -> None:
        """Go on until cancelled, whatever happens: nothing else brings spooled events to Kafka."""
        adopt_at = 0.0
        while True:
            if time.monotonic() >= adopt_at:
                await self._tried(self._spool.adopt())
                adopt_at = time.monotonic() + _ADOPT_SECONDS
            done = [await self._tried(self._drain(folder)) for folder in self._spool.folders]
            await asyncio.sleep(_PAUSE_SECONDS if all(done) else _FAILURE_SECONDS)

    async def _tried(self, work: Awaitable[None]) -> bool:
        """Return False if the work failed in a way that needs a longer pause."""
        # The log may be on the same full disk.
        with contextlib.suppress(OSError):
            try:
                await work
            except UnavailableError as error:
                _log.warning("the spool is not drained", reason=str(error))
            except Exception as error:  # noqa: BLE001 - see `run`
                _log.error("the spool cannot be drained", **named(error))
                return False
            return True
        return False

    async def _drain(self, folder: Folder) -> None:
        for segment in tuple(folder.segments):
            while self._target.ready() is None and segment in folder.segments:
                if not await self._drain_segment(folder, segment):
                    return
        if not folder.segments:
            await self._spool.release(folder)

    async def _drain_segment(self, folder: Folder, segment: Segment) -> bool:
        """Drain what is in a segment now; return False if that has to wait."""
        end = segment.size
        start, found = await asyncio.to_thread(segment.read)
        try:
            for chunk in chunks(found):
                if not await self._deliver(segment, start, chunk):
                    return False
                if time.monotonic() - self._saved_at >= _PROGRESS_SECONDS:
                    await asyncio.to_thread(folder.save_progress, segment)
                    self._saved_at = time.monotonic()
        finally:
            if segment.offset < end:
                folder.save_progress(segment)
        segment.offset = max(segment.offset, end)
        if segment.offset == segment.size:
            await self._spool.seal(segment)
        if segment.sealed and segment.offset == segment.size:
            await asyncio.to_thread(folder.remove, segment)
        return True

    async def _deliver(self, segment: Segment, start: int, chunk: Sequence[Found]) -> bool:
        stored = [item for item in chunk if isinstance(item, Stored)]
        events = [item.event for item in stored]
        if self._must_wait(events):
            return False
        for refused in await self._target.deliver(events):
            await self._put_back(refused)
        self._report(segment, chunk)
        self._metrics.drained.inc(len(events))
        for event in events:
            if self._refused_until.get(event.id, math.inf) < time.monotonic():
                del self._refused_until[event.id]
        segment.offset = start + chunk[-1].end
        segment.drained += len(stored)
        if stored:
            segment.since = stored[-1].milliseconds / 1000
        return True

    def _must_wait(self, events: Sequence[Event]) -> bool:
        now = time.monotonic()
        return any(self._refused_until.get(event.id, now) > now for event in events)

    async def _put_back(self, event: Event) -> None:
        self._metrics.refused.inc()
        self._refused_until[event.id] = time.monotonic() + _REFUSED_SECONDS
        _log.error("Kafka refuses a spooled event; it stays in the spool", event_id=event.id)
        await self._spool.append(event)

    def _report(self, segment: Segment, chunk: Sequence[Found]) -> None:
        place = f"{segment.path.parent.name}/{segment.path.name}"
        for item in chunk:
            if isinstance(item, Torn):
                self._metrics.torn.inc()
                size = item.end - item.start
                _log.warning("a torn record is cut off the spool", segment=place, bytes=size)
            elif not isinstance(item, Stored):
                self._metrics.damaged.inc()
                segment.damaged = True
                size = item.end - item.start
                _log.error(
                    "EVENTS ARE LOST: the spool is damaged; the segment goes to quarantine",
                    segment=place,
                    bytes=size,
                )


def chunks(found: Iterable[Found]) -> Iterator[Sequence[Found]]:
    """Split what a segment holds into parts of at most CHUNK_EVENTS and about CHUNK_BYTES."""
    chunk: list[Found] = []
    size = 0
    for item in found:
        chunk.append(item)
        size += captured_record(item.event).size if isinstance(item, Stored) else 0
        if len(chunk) >= CHUNK_EVENTS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
