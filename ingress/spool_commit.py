"""Group commit: one flush for all that came while the one before it ran. There is no timer."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeAlias, TypeVar

import structlog

from ingress.spool_folder import Folder, Writer
from ingress.spool_format import framed_size
from ingress.spool_metrics import SpoolMetrics
from schemas.errors import UnavailableError, named
from schemas.topics import MEBIBYTE

#: A group ends with the payload that brings it to this size, which bounds what is copied at once.
_GROUP_BYTES: Final = 8 * MEBIBYTE
#: How long a failed write counts; then the next one has to tell.
_FAILURE_SECONDS: Final = 10.0

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Waiting: TypeAlias = tuple[bytes, asyncio.Future[None]]

_log = structlog.get_logger(__name__)


class GroupCommit:
    """Writes payloads in a thread of its own. `waiting_bytes` are not written yet."""

    def __init__(self, writer: Writer, metrics: SpoolMetrics) -> None:
        self._writer = writer
        self._metrics = metrics
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self._failed_at = 0.0
        self._failure: str | None = None
        self._thread = ThreadPoolExecutor(1, "spool")
        self.waiting_bytes = 0

    @property
    def folder(self) -> Folder | None:
        return self._writer.folder

    def failing(self) -> str | None:
        """Return why payloads could not be written of late, None if they could."""
        recent = time.monotonic() - self._failed_at < _FAILURE_SECONDS
        return self._failure if recent else None

    async def append(self, payload: bytes) -> None:
        """Return when the payload is flushed to disk. Raises UnavailableError if that fails."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((payload, stored))
        self.waiting_bytes += framed_size(payload)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await stored

    async def seal(self) -> None:
        """Write nothing more to the present segment."""
        await self._in_order(self._writer.seal)

    async def close(self) -> None:
        """Flush what waits; take nothing more."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        await self.seal()
        self._thread.shutdown()

    async def _write(self) -> None:
        while self._waiting:
            group = self._next_group()
            error = await self._flush([payload for payload, _ in group])
            self.waiting_bytes -= sum(framed_size(payload) for payload, _ in group)
            for _, stored in group:
                _settle(stored, self._failure)
            if error is not None:
                self._metrics.failures.inc()
                # The log may be on the same full disk.
                with contextlib.suppress(OSError):
                    _log.error("events cannot be spooled", count=len(group), **named(error))
        self._writing = None

    async def _flush(self, payloads: Sequence[bytes]) -> Exception | None:
        try:
            await self._in_order(self._writer.write, payloads)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            self._failure = f"the spool cannot be written ({reason}): see to its disk"
            self._failed_at = time.monotonic()
            return error
        self._failure = None
        return None

    def _next_group(self) -> Sequence[_Waiting]:
        size = 0
        for count, (payload, _) in enumerate(self._waiting, 1):
            size += len(payload)
            if size >= _GROUP_BYTES:
                group, self._waiting = self._waiting[:count], self._waiting[count:]
                return group
        group, self._waiting = self._waiting, []
        return group

    def _in_order(
        self, work: Callable[_P, _T], *args: _P.args, **named: _P.kwargs
    ) -> Awaitable[_T]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._thread, lambda: work(*args, **named))


def _settle(stored: asyncio.Future[None], failure: str | None) -> None:
    if stored.done():
        return
    if failure is None:
        stored.set_result(None)
    else:
        stored.set_exception(UnavailableError(failure))
