"""An append-only spool on local disk, for events that Kafka does not take now."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from ingress.records import Event
from ingress.spool_commit import GroupCommit
from ingress.spool_folder import Folder, Segment, Writer, folders
from ingress.spool_format import encode_payload, framed_size
from ingress.spool_metrics import SpoolMetrics
from schemas.errors import UnavailableError, named
from schemas.topics import MEBIBYTE

#: Bodies from this size on are copied in a thread.
_LARGE_BODY: Final = MEBIBYTE
#: How full the spool may be while it counts as a place to store events in.
_NEARLY_FULL: Final = 0.9

_log = structlog.get_logger(__name__)


class Spool:
    """What one process has spooled, in a directory that several share, and what it has adopted.

    `max_bytes` bounds what these take on disk.
    """

    def __init__(self, directory: Path, max_bytes: int, metrics: SpoolMetrics) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._commit = GroupCommit(Writer(directory), metrics)
        self._adopted: list[Folder] = []
        self._left_alone: set[Path] = set()
        metrics.show(
            limit=max_bytes,
            events=lambda: sum(item.written - item.drained for item in self._segments()),
            size=lambda: self.bytes,
            age=self._age,
        )

    @property
    def folders(self) -> Sequence[Folder]:
        own = self._commit.folder
        return [*self._adopted, *([own] if own else [])]

    @property
    def bytes(self) -> int:
        return self._commit.waiting_bytes + sum(segment.size for segment in self._segments())

    def unable(self) -> str | None:
        """Return why events can hardly be stored here, None if they can."""
        if self.bytes >= _NEARLY_FULL * self._max_bytes:
            return "the spool is nearly full"
        return self._commit.failing()

    async def append(self, event: Event) -> None:
        """Return when the event is flushed to disk.

        Raises UnavailableError if the spool is full or cannot be written.
        """
        milliseconds = int(time.time() * 1000)
        if len(event.body) < _LARGE_BODY:
            payload = encode_payload(event, milliseconds)
        else:
            payload = await asyncio.to_thread(encode_payload, event, milliseconds)
        if self.bytes + framed_size(payload) > self._max_bytes:
            raise UnavailableError(
                "the spool is full: bring Kafka back, or raise [ingress] spool_bytes"
            )
        await self._commit.append(payload)
        self._metrics.stored.inc()

    async def adopt(self) -> None:
        """Take over the folders of processes that died."""
        known = {folder.path for folder in self.folders}
        for path in await asyncio.to_thread(folders, self._directory):
            if path in known or path in self._left_alone:
                continue
            try:
                folder = await asyncio.to_thread(Folder.adopt, path)
            except OSError as error:
                _log.error("a spool cannot be read", folder=path.name, **named(error))
                continue
            except UnavailableError as error:
                self._left_alone.add(path)
                _log.error("a spool is left alone", folder=path.name, reason=str(error))
                continue
            if folder is not None:
                self._adopted.append(folder)
                events = sum(segment.written for segment in folder.segments)
                _log.warning("a spool is adopted", folder=path.name, count=events)

    async def seal(self, segment: Segment) -> None:
        """Have nothing more written to a segment."""
        if not segment.sealed:
            await self._commit.seal()

    async def release(self, folder: Folder) -> None:
        """Let go of a folder that is drained, if it is an adopted one."""
        if folder in self._adopted:
            self._adopted.remove(folder)
            await asyncio.to_thread(folder.release)

    async def close(self) -> None:
        """Flush what waits, and leave what is not drained to whoever adopts it."""
        await self._commit.close()
        for folder in self.folders:
            await asyncio.to_thread(folder.release)

    def _segments(self) -> Sequence[Segment]:
        return [segment for folder in self.folders for segment in folder.segments]

    def _age(self) -> float:
        waiting = [item.since for item in self._segments() if item.written > item.drained]
        return max(0.0, time.time() - min(waiting)) if waiting else 0.0
