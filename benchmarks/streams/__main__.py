"""`python -m benchmarks.streams`: see docs/benchmarks.md."""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import click
import uvloop

from benchmarks.machine import described, publish, taken_by_others
from benchmarks.streams.engines import (
    OURS,
    PEERS,
    Job,
    Tools,
    bare,
    engines,
)
from benchmarks.streams.lab import (
    Topics,
    bare_events,
    case_bodies,
    case_events,
    fill,
    fill_captured,
    form_bodies,
    topics_of,
)
from benchmarks.streams.latency import RATE, Latency, latency
from benchmarks.streams.measure import Sample, Spy, Watched, middle
from benchmarks.streams.product import decoding, real, whole_way
from benchmarks.streams.report import Results, Target, compared, latencies, profiles, verdicts
from tests.servers import LocalKafka, running_kafka

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parents[1]
RESULTS: Final = _HERE.parent / "results" / "streams.md"
TOOLS: Final = _ROOT / "var" / "bench-streams"
PACKAGES: Final = ("faust-streaming", "aiokafka", "orjson", "lxml", "uvloop")

REAL: Final = "the real job"
TWO: Final = "the real job, two workers"
JSON: Final = "decoding case JSON"
XML: Final = "decoding form XML"
WHOLE: Final = "from captured case JSON to states"

Measured: TypeAlias = Callable[[Watched, Path], Awaitable[Sample]]
Profiles: TypeAlias = Mapping[str, Counter[str]]
"""Of each job, how often its process was found in each function."""


@dataclass(frozen=True, slots=True)
class Size:
    """`events` of the bare and the real job; `seconds` of the latencies' part."""

    events: int
    rounds: int
    seconds: int


@dataclass(slots=True)
class Plan:
    """The jobs by name, in the order in which each round has them.

    Of `events` half as many captured snapshots are decoded, and a sixth as many forms.
    """

    events: int
    jobs: dict[str, Measured] = field(default_factory=dict)

    async def prepare(self, stack: AsyncExitStack, servers: str, tools: Tools) -> None:
        """Fill the topics that the jobs read."""
        place = {
            name: await stack.enter_async_context(topics_of(servers, f"{name}."))
            for name in ("bare", "real", "json", "xml")
        }
        job = self._job(place["bare"], "cases")
        await place["bare"].rewind("first", "cases")  # has the broker make its topic of offsets
        await fill(job.topics, "cases", bare_events(job.total))
        for engine in engines(tools):
            self.jobs[engine.name] = partial(bare, engine, job)
        job = self._job(place["real"], "cases")
        await fill(job.topics, "cases", case_events(job.total))
        self.jobs[REAL] = partial(real, job)
        self.jobs[TWO] = partial(real, job, workers=2)
        job = self._job(place["json"], "captured", 1 / 2)
        await fill_captured(job.topics, case_bodies(job.total))
        self.jobs[JSON] = partial(decoding, job, made=("cases",))
        self.jobs[WHOLE] = partial(whole_way, job)
        job = self._job(place["xml"], "captured", 1 / 6)
        await fill_captured(job.topics, form_bodies(job.total))
        self.jobs[XML] = partial(decoding, job, made=("forms", "case-changes"))

    def _job(self, topics: Topics, source: str, share: float = 1) -> Job:
        total = int(self.events * share)
        return Job(topics, source, total // 3, total)

    async def measured(self, watched: Watched, folder: Path, rounds: int) -> Results:
        """Measure round by round, so that what the machine does meanwhile hits all alike."""
        samples: dict[str, list[Sample]] = {}
        for turn in range(rounds):
            for number, (name, measure) in enumerate(self.jobs.items()):
                sample = await measure(watched, folder / f"{turn}-{number}")
                samples.setdefault(name, []).append(sample)
                click.echo(f"{name}: {sample.per_second:,.0f}/s", err=True)
        return {name: middle(each) for name, each in samples.items()}

    async def profiled(self, watched: Watched, py_spy: Path, folder: Path) -> Profiles:
        """Run our own jobs once more, and look where they spend their time."""
        found = {}
        for number, name in enumerate((OURS, REAL, JSON, XML)):
            spy = Spy(py_spy, folder)
            await self.jobs[name](replace(watched, spy=spy), folder / f"profile-{number}")
            found[name] = spy.samples
        return found


@click.command()
@click.option("--events", default=150_000, show_default=True, help="Length of the bare job.")
@click.option("--rounds", default=3, show_default=True, help="Measurements for each median.")
@click.option("--seconds", default=20, show_default=True, help="Length of the latencies' part.")
@click.option("--out", default=RESULTS, type=click.Path(path_type=Path), show_default=True)
def main(events: int, rounds: int, seconds: int, out: Path) -> None:
    """Measure, print the tables, write them to a file."""
    started = time.monotonic()
    tools = Tools.made(TOOLS)
    before = taken_by_others()
    with tempfile.TemporaryDirectory(prefix="casewire-bench-") as name:
        folder = Path(name)
        with running_kafka(folder / "kafka") as broker:
            found = uvloop.run(_measured(broker, tools, folder, Size(events, rounds, seconds)))
    lines = [*_heading(events, rounds), *_tables(found)]
    publish(lines, (before, taken_by_others()), out)
    click.echo(f"{time.monotonic() - started:.0f} s", err=True)


@dataclass(frozen=True, slots=True)
class Found:
    """All that was measured."""

    results: Results
    profiles: Profiles
    latency: Latency


async def _measured(server: LocalKafka, tools: Tools, folder: Path, size: Size) -> Found:
    if server.process is None:
        raise RuntimeError("the broker does not run")
    watched = Watched(server.process.pid)
    async with AsyncExitStack() as stack:
        plan = Plan(size.events)
        await plan.prepare(stack, server.bootstrap_servers, tools)
        results = await plan.measured(watched, folder, size.rounds)
        found = await plan.profiled(watched, tools.py_spy, folder)
        live = await stack.enter_async_context(topics_of(server.bootstrap_servers, "live."))
        return Found(results, found, await latency(live, folder / "live", size.seconds))


def _heading(events: int, rounds: int) -> Iterator[str]:
    yield "# The streams, measured"
    yield ""
    yield "Made by `make bench-streams`; docs/benchmarks.md says how to read it."
    yield ""
    yield from described(PACKAGES)
    yield "- Kafka and Kafka Streams 4.1.0, quixstreams 3.28.1"
    yield f"- medians of {rounds} interleaved measurements; the bare job has {events:,} events"
    yield ""


def _tables(found: Found) -> Iterator[str]:
    results = found.results
    peer = max(PEERS, key=lambda name: results[name].per_second)
    ours = {OURS, REAL, TWO, JSON, WHOLE, XML}
    yield "## The bare job"
    yield ""
    yield from compared(_some(results, [OURS, *(results.keys() - ours)]), results[peer], peer)
    yield "## Casewire's own work"
    yield ""
    yield from compared(_some(results, [REAL, TWO, WHOLE, JSON, XML]), results[peer], peer)
    ratio = results[TWO].per_second / results[REAL].per_second
    yield f"Two workers judge {ratio:.2f} times as much as one."
    yield ""
    yield f"## From the POST to the published state, {RATE} events a second"
    yield ""
    yield from latencies(found.latency)
    yield "## Targets"
    yield ""
    yield from verdicts(_targets(found, results[peer]))
    yield "## Where the time goes"
    yield ""
    yield "Samples of the process's threads that ran; what a function calls in C counts for it."
    yield ""
    yield from profiles(found.profiles)


def _some(results: Results, names: Sequence[str]) -> Results:
    return {name: sample for name, sample in results.items() if name in names}


def _targets(found: Found, peer: Sample) -> Iterator[Target]:
    def rate(name: str) -> float:
        return found.results[name].per_second

    yield Target("bare job, to the better of the two engines", rate(OURS) / peer.per_second, 2)
    yield Target("real job, to the same", rate(REAL) / peer.per_second, 1)
    yield Target("case JSON decoded a second", rate(JSON), 25_000)
    yield Target("form XML decoded a second", rate(XML), 8_000)
    yield Target("POST to state, p50 in ms", found.latency.p50, 100, at_least=False)
    yield Target("POST to state, p99 in ms", found.latency.p99, 500, at_least=False)


if __name__ == "__main__":
    sys.exit(main())
