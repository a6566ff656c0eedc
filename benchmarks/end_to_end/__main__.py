"""`python -m benchmarks.end_to_end`: see docs/benchmarks.md."""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import click
import orjson
import uvloop

from benchmarks.end_to_end.load import Load, load
from benchmarks.end_to_end.servers import by_hand, casewire, environment, way_of
from benchmarks.machine import described, log_bytes, publish, taken_by_others
from benchmarks.sinks.delivered import visible
from benchmarks.sinks.ours import SINK, stored
from benchmarks.sinks.place import database, tuned_postgres
from benchmarks.streams.events import visits
from benchmarks.streams.lab import Topics, last_values, topics_of
from benchmarks.streams.latency import RATE, WARM_SECONDS, Latency, latency_of, posted
from benchmarks.streams.report import Target, verdicts
from schemas.topics import TOPICS
from tests.servers import LocalKafka, LocalPostgres, running_kafka

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parents[1]
RESULTS: Final = _HERE.parent / "results" / "end_to_end.md"
TOOLS: Final = _ROOT / "var" / "bench-end-to-end"
PACKAGES: Final = ("starlette", "uvicorn", "faust-streaming", "aiokafka", "psycopg", "uvloop")

HAND: Final = "by hand"
OURS: Final = "Casewire"
#: What Casewire is asked to sustain, to what is written by hand at its best; wrk is a bit slower.
_TIMES: Final = 3.2
_WARM: Final = 2
#: Parts of a run whose lags are compared.
_PARTS: Final = 4


@dataclass(frozen=True, slots=True)
class Lab:
    kafka: LocalKafka
    postgres: LocalPostgres
    programs: Path
    folder: Path

    @property
    def broker(self) -> int:
        if self.kafka.process is None:
            raise RuntimeError("the broker does not run")
        return self.kafka.process.pid


@dataclass(frozen=True, slots=True)
class Sustained:
    """A load with a pace; `lags` are the medians of its parts, from the POST to the row in s.

    `stored`: bytes an event on the broker's disk, by topic.
    """

    load: Load
    lags: Sequence[float]
    most_lag: float
    stored: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Round:
    """`hand` as fast as it can, `ours` at its multiple, and both at 500 events a second."""

    hand: Load
    ours: Sustained
    hand_latency: Latency
    our_latency: Latency


async def measured(lab: Lab, seconds: int, rounds: int) -> Sequence[Round]:
    """Measure both ways by turns."""
    found = []
    for turn in range(rounds):
        folder = lab.folder / str(turn)
        folder.mkdir()
        with database(lab.postgres, f"hand_{turn}") as url:
            log = folder / "gunicorn.log"
            with by_hand(lab.postgres, url, lab.programs, log) as way:
                await load(way, folder, _WARM)
                hand = await load(way, folder, seconds)
                events = await posted(way.url, _bodies(seconds))
                hand_latency = latency_of(events[RATE * WARM_SECONDS :], lambda each: each.answered)
        with database(lab.postgres, f"casewire_{turn}") as url:
            ours, our_latency = await _ours(lab, folder, url, (seconds, hand.per_second * _TIMES))
        found.append(Round(hand, ours, hand_latency, our_latency))
        click.echo(f"{HAND}: {hand.per_second:,.0f}/s, p99 {hand.p99:.0f} ms", err=True)
        rate, lags = ours.load.per_second, ", ".join(f"{lag:.2f}" for lag in ours.lags)
        click.echo(f"{OURS}: {rate:,.0f}/s, p99 {ours.load.p99:.0f} ms, lags {lags} s", err=True)
    return found


async def _ours(
    lab: Lab, folder: Path, url: str, pace: tuple[int, float]
) -> tuple[Sustained, Latency]:
    seconds, rate = pace
    async with AsyncExitStack() as stack:
        servers = lab.kafka.bootstrap_servers
        topics = await stack.enter_async_context(topics_of(servers, f"round-{folder.name}."))
        system = casewire(folder / "casewire", topics, url)
        for role in system.roles:
            system.start(role)
        stack.callback(system.stop)
        await system.ready(system.roles)
        way = way_of(system, lab.postgres, lab.broker)
        await load(way, folder, _WARM, rate)
        done = await load(way, folder, seconds, rate)
        await system.caught_up()
        there = await visible(topics.kafka, SINK)
        lags = _lags(there, done)
        stored = _stored(lab.kafka.broker.data_dir, topics, len(there))
        sustained = Sustained(done, _parts(lags), quantiles(lags, n=100)[98], stored)
        events = await posted(way.url, _bodies(seconds))
        await system.caught_up()
        there = await visible(topics.kafka, SINK)
        our_latency = latency_of(events[RATE * WARM_SECONDS :], lambda event: there[event.id][0])
        await _require_rows(topics, url)
    return sustained, our_latency


def _stored(data_dir: Path, topics: Topics, events: int) -> Mapping[str, float]:
    found = {name: log_bytes(data_dir, topics.kafka.topic(name)) for name in TOPICS}
    return {name: each / events for name, each in found.items() if each}


def _parts(lags: Sequence[float]) -> Sequence[float]:
    """Return the median of each part of a run."""
    size = len(lags) // _PARTS
    return [median(lags[number * size : (number + 1) * size]) for number in range(_PARTS)]


def _bodies(seconds: int) -> Sequence[bytes]:
    return [each.body for each in visits(RATE * (WARM_SECONDS + seconds))]


def _lags(there: Mapping[str, tuple[float, str]], done: Load) -> Sequence[float]:
    """Return how long each state of a load took to its row, in the order of the events."""
    times = sorted((datetime.fromisoformat(time).timestamp(), at) for at, time in there.values())
    return [at - began for began, at in times if done.began <= began <= done.ended]


async def _require_rows(topics: Topics, url: str) -> None:
    """Raise RuntimeError unless the rows say what the last states say."""
    states = await last_values(topics, topics.kafka.topic("case-state"))
    right = {}
    for value in states.values():
        state = orjson.loads(value)
        right[state["case_id"]] = state["properties"]
    rows = stored(url, "demo")
    found = {case: {name: text for name, text in row.items() if text} for case, row in rows.items()}
    if found != right:
        wrong = sum(found.get(case) != properties for case, properties in right.items())
        raise RuntimeError(f"the rows are wrong about {wrong} of {len(right)} cases")


def _middle(loads: Sequence[Load]) -> Load:
    numbers = {
        each.name: median(getattr(load, each.name) for load in loads)
        for each in fields(Load)
        if each.name != "spent"
    }
    spent = {name: median(load.spent[name] for load in loads) for name in loads[0].spent}
    return Load(**numbers, spent=spent)


def _tables(rounds: Sequence[Round]) -> Iterator[str]:
    hand, ours = _middle([each.hand for each in rounds]), _middle([r.ours.load for r in rounds])
    yield "## As much as it gets, and three times that"
    yield ""
    yield "| | requests/s | answer p50 ms | answer p99 ms | refused or broken |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, each in ((f"{HAND}, as fast as it can", hand), (f"{OURS}, at a pace", ours)):
        yield (
            f"| {name} | {each.per_second:,.0f} | {each.p50:.1f} | {each.p99:.1f} "
            f"| {each.broken:.0f} |"
        )
    yield ""
    lags = [median(part) for part in zip(*(each.ours.lags for each in rounds), strict=True)]
    listed = ", ".join(f"{lag:.2f}" for lag in lags)
    most = median(each.ours.most_lag for each in rounds)
    yield f"From Casewire's POST to the row: {listed} s (each quarter's median), p99 {most:.2f} s."
    yield ""
    yield "## CPU seconds for a million events"
    yield ""
    yield "| | " + " | ".join(ours.spent) + " | gunicorn | in all |"
    yield "| --- |" + " ---: |" * (len(ours.spent) + 2)
    for name, each in ((HAND, hand), (OURS, ours)):
        parts = " | ".join(f"{each.spent.get(part, 0):,.0f}" for part in (*ours.spent, "gunicorn"))
        yield f"| {name} | {parts} | {sum(each.spent.values()):,.0f} |"
    yield ""
    stored = {
        name: median(each.ours.stored[name] for each in rounds) for name in rounds[0].ours.stored
    }
    yield "## Bytes an event on the broker's disk"
    yield ""
    yield "| " + " | ".join(stored) + " |"
    yield "|" + " ---: |" * len(stored)
    yield "| " + " | ".join(f"{each:,.0f}" for each in stored.values()) + " |"
    yield ""
    yield f"## {RATE} events a second, to the row"
    yield ""
    yield "| | p50 ms | p99 ms | the sender was late by, p99 ms |"
    yield "| --- | ---: | ---: | ---: |"
    for name, latencies in _by_way(rounds).items():
        numbers = [
            median(getattr(each, key) for each in latencies) for key in ("p50", "p99", "sent_p99")
        ]
        yield f"| {name} | " + " | ".join(f"{number:.0f}" for number in numbers) + " |"
    yield ""
    yield "## Targets"
    yield ""
    growth = lags[-1] - lags[0]
    p99 = median(each.our_latency.p99 for each in rounds)
    yield from verdicts(
        iter(
            (
                Target("sustained, to by hand", ours.per_second / hand.per_second, 3),
                Target("growth of the lag over the run, in s", growth, 0.5, at_least=False),
                Target("answer p99 in ms", ours.p99, 20, at_least=False),
                Target(f"row visible p99 in ms at {RATE} a second", p99, 1000, at_least=False),
            )
        )
    )


def _by_way(rounds: Sequence[Round]) -> Mapping[str, Sequence[Latency]]:
    return {
        HAND: [each.hand_latency for each in rounds],
        OURS: [each.our_latency for each in rounds],
    }


def _heading(seconds: int, rounds: int) -> Iterator[str]:
    yield "# From the POST to the row, measured"
    yield ""
    yield "Made by `make bench-end-to-end`; docs/benchmarks.md says how to read it."
    yield ""
    yield from described(PACKAGES)
    yield "- by hand: Flask 3.1.3, gunicorn 27.0.1 (2 workers of 4 threads), psycopg-pool 3.3.3"
    yield f"- medians of {rounds} interleaved measurements of {seconds} s"
    yield "- a new connection a request"
    yield ""


@click.command()
@click.option("--seconds", default=20, show_default=True, help="Length of one measurement.")
@click.option("--rounds", default=3, show_default=True, help="Measurements for each median.")
@click.option("--out", default=RESULTS, type=click.Path(path_type=Path), show_default=True)
def main(seconds: int, rounds: int, out: Path) -> None:
    """Measure, print the tables, write them to a file."""
    started = time.monotonic()
    programs = environment(TOOLS)
    before = taken_by_others()
    with tempfile.TemporaryDirectory(prefix="casewire-bench-") as name:
        folder = Path(name)
        with running_kafka(folder / "kafka") as kafka, tuned_postgres() as postgres:
            lab = Lab(kafka, postgres, programs, folder)
            found = uvloop.run(measured(lab, seconds, rounds))
    publish([*_heading(seconds, rounds), *_tables(found)], (before, taken_by_others()), out)
    click.echo(f"{time.monotonic() - started:.0f} s", err=True)


if __name__ == "__main__":
    sys.exit(main())
