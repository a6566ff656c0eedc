"""What a run took: of the clock, of the processors, of memory."""

import asyncio
import contextlib
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

from benchmarks.machine import TICKS, cpu_seconds
from benchmarks.sinks.workload import Faults

_LOOK_SECONDS: Final = 0.05

NO_FAULTS: Final = Faults()

Spent: TypeAlias = Callable[[], float]
"""The CPU seconds that something has taken so far."""


@dataclass(frozen=True, slots=True)
class Sample:
    """CPU in seconds for 100,000 events, of the writer, PostgreSQL and the broker; `rss` in MB."""

    per_second: float
    cpu: float
    postgres: float
    broker: float
    rss: float
    faults: Faults = NO_FAULTS


def middle(samples: Sequence[Sample]) -> Sample:
    """Return the median of each number, and the most of each kind of fault."""
    numbers = {
        each.name: median(getattr(sample, each.name) for sample in samples)
        for each in fields(Sample)
        if each.name != "faults"
    }
    most = {
        each.name: max(getattr(sample.faults, each.name) for sample in samples)
        for each in fields(Faults)
    }
    return Sample(**numbers, faults=Faults(**most))


@dataclass(frozen=True, slots=True)
class Span:
    """So many events, from one time to another (seconds since 1970)."""

    began: float
    ended: float
    events: int

    @property
    def per_second(self) -> float:
        """Events a second; a very short run may be over before anything was seen of it."""
        return self.events / max(self.ended - self.began, 0.001)


@dataclass(slots=True)
class Watch:
    """Notes several times a second what each of `spent` has taken, to tell of any span later."""

    spent: Mapping[str, Spent]
    _times: list[float] = field(default_factory=list)
    _taken: list[Mapping[str, float]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator["Watch"]:
        """Look while this lasts."""
        self._look()
        task = asyncio.create_task(self._look_on())
        try:
            yield self
        finally:
            task.cancel()
            self._look()

    def per_100k(self, span: Span) -> Mapping[str, float]:
        """Return the CPU seconds for 100,000 events of a span."""
        first, last = (
            self._taken[min(bisect_left(self._times, at), len(self._taken) - 1)]
            for at in (span.began, span.ended)
        )
        return {
            name: (last[name] - first[name]) * 100_000 / max(span.events, 1) for name in self.spent
        }

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._look()

    def _look(self) -> None:
        self._times.append(time.time())
        self._taken.append({name: spent() for name, spent in self.spent.items()})


def process(pid: int) -> Spent:
    """Return what tells the time of a process; what it had stays when it has ended."""
    last = 0.0

    def spent() -> float:
        nonlocal last
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            last = cpu_seconds(pid)
        return last

    return spent


def family(pid: int) -> Spent:
    """Return what tells the time of a process and its children, living and ended."""

    def spent() -> float:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return sum(map(_with_ended, [str(pid), *children]))

    return spent


def _with_ended(pid: str) -> float:
    # proc(5): utime, stime, and the same of children that ended, are fields 14 to 17.
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it is among its parent's ended ones now
    return sum(map(int, text.rpartition(")")[2].split()[11:15])) / TICKS


def most_rss_mb(pid: int) -> float:
    """Return the most that a process ever had in memory."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has ended")


def span_of(done: Iterable[tuple[float, int]], warm: int) -> Span:
    """Return the span from when `warm` events were done to the last; `done` is (time, count)."""
    began, count, total = 0.0, 0, 0
    ended = began
    for ended, number in sorted(done):
        total += number
        if not began and total >= warm:
            began, count = ended, total
    return Span(began, ended, total - count)


async def reached(progress: Callable[[], Any], goal: int, seconds: float) -> Span:
    """Return when `progress` is at the goal, and the span since a third of it was done."""
    began, done = 0.0, 0
    async with asyncio.timeout(seconds):
        while True:
            now = await progress()
            if not began and now >= goal // 3:
                began, done = time.time(), now
            if now >= goal:
                return Span(began, time.time(), now - done)
            await asyncio.sleep(_LOOK_SECONDS)
