"""`casewire streams` by its command line, and its decoder alone, on topics that are full."""

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import orjson

from benchmarks.streams.engines import Job, running
from benchmarks.streams.events import truth
from benchmarks.streams.lab import Topics, key_of, last_values
from benchmarks.streams.measure import Meter, Progress, Sample, Watched, reached
from tests.end_to_end.system import System

_DECODER: Final = (sys.executable, "-m", "benchmarks.streams.worker", "decode")


async def real(job: Job, watched: Watched, folder: Path, workers: int = 1) -> Sample:
    """Measure workers that judge `cases`. Raises RuntimeError if the states are wrong."""
    topics = job.topics
    await topics.anew([job.source])
    await topics.rewind(topics.kafka.group("streams"), job.source)

    async def progress() -> int:
        return await topics.ends("case-state")

    goal = truth(job.total).applied
    async with _workers(topics, folder, workers) as system:
        meter = Meter(_pids(system), watched)
        sample = await meter.measure(_started(system, progress, job.warm), progress, goal)
    await _require_states(job)
    return sample


async def whole_way(job: Job, watched: Watched, folder: Path) -> Sample:
    """Measure a worker from `captured` to states, to its last commit."""
    topics, group = job.topics, job.topics.kafka.group("streams")
    await topics.anew([job.source])
    await topics.rewind(group, job.source)

    async def progress() -> int:
        return min(
            await topics.committed(group, job.source), await topics.committed(group, "cases")
        )

    async with _workers(topics, folder, 1) as system:
        meter = Meter(_pids(system), watched)

        async def decoded() -> int:
            return await topics.ends("cases")

        sample = await meter.measure(_started(system, decoded, job.warm), progress, job.total)
    await _require_states(job)
    return sample


async def decoding(job: Job, watched: Watched, folder: Path, made: Sequence[str]) -> Sample:
    """Measure the decoder alone; each event makes one on each of the topics `made`.

    Raises RuntimeError if it does not, or if there is a dead letter.
    """
    topics = job.topics
    await topics.anew([job.source])
    group = topics.kafka.group(folder.name)

    async def progress() -> int:
        return await topics.committed(group, job.source)

    async with running(_DECODER, job, group, folder) as run:
        meter = Meter([run.pid], watched)
        sample = await meter.measure(run.warm(job.warm), progress, job.total)
    found = {name: await topics.ends(name) for name in (*made, "dead-letters")}
    if found != {**dict.fromkeys(made, job.total), "dead-letters": 0}:
        raise RuntimeError(f"of {job.total} captured events came {found}")
    return sample


def system_in(folder: Path, topics: Topics) -> System:
    """Return a system of no processes yet."""
    folder.mkdir(parents=True)
    system = System(folder, topics.kafka, {})
    system.write_config()
    return system


@contextlib.asynccontextmanager
async def _workers(topics: Topics, folder: Path, count: int) -> AsyncIterator[System]:
    system = system_in(folder, topics)
    for number in range(count):
        system.start(f"streams#{number}")
    try:
        yield system
    finally:
        system.stop()


def _pids(system: System) -> Sequence[int]:
    return [process.pid for process in system.processes.values()]


async def _started(system: System, progress: Progress, warm: int) -> int:
    """Return what is done when all workers are ready and as much as `warm` is done."""
    await system.ready(system.processes)
    return await reached(progress, warm)


async def _require_states(job: Job) -> None:
    topics = job.topics
    states = await last_values(topics, topics.kafka.topic("case-state"))
    latest = {key_of(case): str(step) for case, step in truth(job.total).latest.items()}
    found = {key: orjson.loads(value)["properties"]["visits"] for key, value in states.items()}
    if found != latest:
        wrong = sum(found.get(key) != step for key, step in latest.items())
        raise RuntimeError(f"the states are wrong about {wrong} of {len(latest)} cases")
