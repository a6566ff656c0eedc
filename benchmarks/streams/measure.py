"""One measurement: processes that work off a topic, from when they are warm to their last event."""

import asyncio
import contextlib
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

from benchmarks.machine import cpu_seconds, rss_mb

_LOOK_SECONDS: Final = 0.02
_MOST_SECONDS: Final = 120

#: How long a profile is taken, and how often in a second.
_SPY_SECONDS: Final = 3
_SPY_RATE: Final = 200
#: Where a thread waits, which py-spy takes for work on a busy machine.
_WAITING: Final = ("EpollSelector.select ", "_worker (concurrent/futures/")

Progress: TypeAlias = Callable[[], Awaitable[int]]
"""How many events have been worked off."""


@dataclass(frozen=True, slots=True)
class Sample:
    """`cpu` of the processes and `broker` in seconds for 100,000 events, `cores` in use, `rss` MB.

    `cores` are those that one process used; `rss` is the largest one's.
    """

    per_second: float
    cpu: float
    broker: float
    cores: float
    rss: float


@dataclass(frozen=True, slots=True)
class Spy:
    """Takes a profile with py-spy: how many samples had each function at the top."""

    py_spy: Path
    folder: Path
    samples: Counter[str] = field(default_factory=Counter)

    async def look(self, pid: int) -> None:
        """Look at a process for some seconds; what it calls in C counts for the caller."""
        output = self.folder / f"{pid}.txt"
        process = await asyncio.create_subprocess_exec(
            self.py_spy, "record", "--pid", str(pid), "--duration", str(_SPY_SECONDS),
            "--rate", str(_SPY_RATE), "--format", "raw", "--output", output, "--nolineno",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        await process.wait()
        for line in output.read_text(encoding="utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            top = stack.rpartition(";")[2]
            if not top.startswith(_WAITING):
                self.samples[top] += int(count)


@dataclass(frozen=True, slots=True)
class Watched:
    """What runs are measured by: the broker's process, and a profiler if there is to be one."""

    broker: int
    spy: Spy | None = None


@dataclass(frozen=True, slots=True)
class Meter:
    """Measures processes, and the broker beside them."""

    pids: Sequence[int]
    watched: Watched

    async def measure(self, start: Awaitable[int], progress: Progress, goal: int) -> Sample:
        """Measure from `start`, which returns what was done by then, until all is done."""
        async with asyncio.timeout(_MOST_SECONDS):
            before = await start
            started, cpu = time.monotonic(), self._cpu()
            broker = cpu_seconds(self.watched.broker)
            async with _looking(self.watched.spy, self.pids[0]):
                await reached(progress, goal)
        seconds = time.monotonic() - started
        cpu = self._cpu() - cpu
        per = 100_000 / (goal - before)
        return Sample(
            per_second=(goal - before) / seconds,
            cpu=cpu * per,
            broker=(cpu_seconds(self.watched.broker) - broker) * per,
            cores=cpu / seconds / len(self.pids),
            rss=max(rss_mb(pid) for pid in self.pids),
        )

    def _cpu(self) -> float:
        return sum(cpu_seconds(pid) for pid in self.pids)


@contextlib.asynccontextmanager
async def _looking(spy: Spy | None, pid: int) -> AsyncIterator[None]:
    if spy is None:
        yield
        return
    async with asyncio.TaskGroup() as group:
        group.create_task(spy.look(pid))
        yield


async def reached(progress: Progress, goal: int) -> int:
    """Return what is done once it is as much as `goal`."""
    while True:
        done = await progress()
        if done >= goal:
            return done
        await asyncio.sleep(_LOOK_SECONDS)


def middle(samples: Sequence[Sample]) -> Sample:
    """Return the median of each number."""
    return Sample(
        *(median(getattr(sample, name) for sample in samples) for name in Sample.__slots__)
    )
