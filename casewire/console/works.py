"""What a person has ordered and what goes on beside the pages: replays, discards, dry runs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import structlog
from aiokafka.errors import KafkaError

from casewire.console.sessions import new_id
from schemas.errors import CasewireError

_KEPT: Final = 200
#: Most is done by then, and the first page tells the result.
_PATIENCE_SECONDS: Final = 3.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Work:
    """`title` says what is done, `back` is the page to return to.

    `said` is what came of it, a sentence each, or `failed` why not all of it was done. `shown` are
    details, such as keys or ids.
    """

    title: str
    back: str
    id: str = field(default_factory=new_id)
    done: int = 0
    total: int = 0
    finished: bool = False
    said: Sequence[str] = ()
    shown: Sequence[str] = ()
    failed: str = ""

    def progress(self, thing: object) -> None:
        """Count one more thing as done."""
        self.done += 1


Job: TypeAlias = Callable[[Work], Awaitable[None]]


@dataclass(slots=True)
class Works:
    """Runs jobs in this process; remembers the latest."""

    _works: dict[str, Work] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, title: str, back: str, job: Job) -> Work:
        """Begin a job; return after a moment, or when it is done."""
        work = Work(title, back)
        self._works[work.id] = work
        if len(self._works) > _KEPT:
            del self._works[next(iter(self._works))]
        task = asyncio.create_task(_run(work, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait([task], timeout=_PATIENCE_SECONDS)
        return work

    def find(self, work_id: str) -> Work | None:
        return self._works.get(work_id)

    async def stop(self) -> None:
        """End what is under way: all of it may be done again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _run(work: Work, job: Job) -> None:
    try:
        await job(work)
    except CasewireError as error:
        work.failed = str(error)
    except KafkaError as error:
        work.failed = f"the broker did not take all of it ({type(error).__name__}); do it again"
    except Exception as error:  # noqa: BLE001 - nobody else would hear of it
        _log.error("a work of the console failed", exc_info=error)
        work.failed = f"an unexpected {type(error).__name__}; see the console's log"
    finally:
        work.finished = True
