"""`python -m benchmarks.sinks`: see docs/benchmarks.md."""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import click
import uvloop

from benchmarks.machine import described, publish, taken_by_others
from benchmarks.sinks.bad_row import ROWS, Cost, cost_of_a_bad_row
from benchmarks.sinks.bound import copied, read
from benchmarks.sinks.debezium import TOPIC, Debezium
from benchmarks.sinks.export import Export
from benchmarks.sinks.measure import Sample, middle
from benchmarks.sinks.other import FILE_ROWS, http, parquet, writer_per_second
from benchmarks.sinks.ours import casewire, no_target
from benchmarks.sinks.place import Place, Tools, tuned_postgres
from benchmarks.sinks.report import Results, compared, faulty, owners
from benchmarks.sinks.workload import connect_records, event_records, records, truth
from benchmarks.streams.lab import fill, topics_of
from benchmarks.streams.measure import Spy
from benchmarks.streams.report import Target, profiles, verdicts
from tests.servers import LocalKafka, LocalPostgres, running_kafka

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parents[1]
RESULTS: Final = _HERE.parent / "results" / "sinks.md"
TOOLS: Final = _ROOT / "var" / "bench-sinks"
PACKAGES: Final = ("faust-streaming", "aiokafka", "orjson", "psycopg", "uvloop")

OURS: Final = "Casewire, 2,000 a batch"
SMALL: Final = "Casewire, 100 a batch"
NOTHING: Final = "Casewire, a target that takes all at once"
BOUND: Final = "the serial bound"
BOUND_SMALL: Final = "the serial bound, 100 a batch"
READ: Final = "aiokafka, read and decoded only"
EXPORT: Final = "commcare-export, first load"
VARYING: Final = "Debezium, fields vary"
CONSTANT: Final = "Debezium, all fields always"
HTTP: Final = "Casewire, `http`, 8 requests at once"
FILES: Final = "Casewire, `files`, Parquet"

#: The slow ones write each so-manieth event, and case: all kinds of them, rare properties too.
_SLOW_EACH: Final = 4
#: And `http` a workload that is so much smaller.
_HTTP_EACH: Final = 5

Writer: TypeAlias = Callable[[Path], Awaitable[Sample]]


@dataclass(frozen=True, slots=True)
class Lab:
    """The servers, what is compared, and a folder for the runs."""

    kafka: LocalKafka
    postgres: LocalPostgres
    tools: Tools
    folder: Path

    async def place(self, stack: AsyncExitStack, prefix: str, total: int) -> Place:
        if self.kafka.process is None:
            raise RuntimeError("the broker does not run")
        topics = await stack.enter_async_context(topics_of(self.kafka.bootstrap_servers, prefix))
        return Place(topics, self.postgres, self.kafka.process.pid, total)


@dataclass(frozen=True, slots=True)
class Found:
    """All that was measured."""

    results: Results
    bad_row: Cost
    parquet: float
    profile: Counter[str]


async def measured(lab: Lab, events: int, rounds: int) -> Found:
    """Measure round by round, so that what the machine does meanwhile hits all alike."""
    samples: dict[str, list[Sample]] = {}
    async with AsyncExitStack() as stack:
        place = await lab.place(stack, "states.", events)
        await place.topics.rewind("first", "case-state")  # has the broker make its own topic
        await fill(place.topics, "case-state", records(events))
        writers = {**_ours(place), **await _others(lab, stack, events)}
        writers |= await _peers(lab, stack, events)
        for turn in range(rounds):
            for number, (name, write) in enumerate(writers.items()):
                sample = await write(lab.folder / f"run-{turn}-{number}")
                samples.setdefault(name, []).append(sample)
                click.echo(f"{name}: {sample.per_second:,.0f}/s", err=True)
        spy = Spy(lab.tools.bin / "py-spy", lab.folder)
        await casewire(place, lab.folder / "profile", rows=2000, spy=spy)
        cost = await cost_of_a_bad_row(lab.postgres)
        files = writer_per_second(lab.folder / "files")
    return Found({name: middle(each) for name, each in samples.items()}, cost, files, spy.samples)


def _ours(place: Place) -> dict[str, Writer]:
    return {
        OURS: partial(casewire, place, rows=2000),
        BOUND: partial(copied, place, rows=2000),
        SMALL: partial(casewire, place, rows=100),
        BOUND_SMALL: partial(copied, place, rows=100),
        NOTHING: partial(no_target, place),
        READ: partial(read, place),
    }


async def _others(lab: Lab, stack: AsyncExitStack, total: int) -> dict[str, Writer]:
    few = total // _HTTP_EACH
    http_place = await lab.place(stack, "http.", few)
    await fill(http_place.topics, "case-state", records(few))
    files_place = await lab.place(stack, "files.", total)
    await fill(files_place.topics, "cases", event_records(total))
    return {HTTP: partial(http, http_place), FILES: partial(parquet, files_place)}


async def _peers(lab: Lab, stack: AsyncExitStack, events: int) -> dict[str, Writer]:
    place = await lab.place(stack, "unused.", events)
    cases = list(truth(events).newest.values())[::_SLOW_EACH]
    export = Export(lab.tools.bin / "commcare-export", cases)
    peers: dict[str, Writer] = {EXPORT: partial(export.measure, place)}
    for name, each, varying in ((VARYING, _SLOW_EACH, True), (CONSTANT, 1, False)):
        place = await lab.place(stack, f"{'varying' if varying else 'constant'}.", events)
        await place.topics.create([place.topics.kafka.topic(TOPIC)])
        await fill(place.topics, TOPIC, connect_records(events, each, varying=varying))
        peers[name] = partial(Debezium(lab.tools.connect, each).measure, place)
    return peers


def _heading(events: int, rounds: int) -> Iterator[str]:
    overtaken, cases = truth(events).overtaken, len(truth(events).newest)
    yield "# The sinks, measured"
    yield ""
    yield "Made by `make bench-sinks`; docs/benchmarks.md says how to read it."
    yield ""
    yield from described(PACKAGES)
    yield "- Kafka and Kafka Connect 4.1.0, commcare-export 1.16.0, Debezium's JDBC sink 3.3.1"
    yield f"- medians of {rounds} interleaved measurements"
    yield (
        f"- {events:,} states of {cases:,} cases; of {overtaken:,} cases the last state to be read "
        "is not the newest"
    )
    yield f"- commcare-export writes one of {_SLOW_EACH} cases, Debezium with varying fields one of"
    yield f"  {_SLOW_EACH} states; `http` gets {events // _HTTP_EACH:,} states"
    yield ""


def _tables(found: Found) -> Iterator[str]:
    results, cost = found.results, found.bad_row
    yield "## Into PostgreSQL"
    yield ""
    elsewhere = (HTTP, FILES)
    yield from compared({k: each for k, each in results.items() if k not in elsewhere}, OURS)
    yield "What is not so in the end, the most of all rounds:"
    yield ""
    written = (OURS, SMALL, EXPORT, VARYING, CONSTANT)
    yield from faulty({name: results[name] for name in written})
    yield "## Elsewhere"
    yield ""
    yield from compared({name: results[name] for name in elsewhere}, FILES)
    yield (
        f"The Parquet writer alone takes {found.parquet:,.0f} rows a second, from decoded events "
        f"to complete files of {FILE_ROWS:,} rows on the disk."
    )
    yield ""
    yield "## A bad row"
    yield ""
    yield (
        f"{ROWS:,} rows from records to the commit take {cost.clean:.0f} ms. One that PostgreSQL "
        f"refuses adds {cost.refused:.0f} ms, one with a NUL character {cost.screened:.0f} ms."
    )
    yield ""
    yield "## Targets"
    yield ""
    yield from verdicts(_targets(found))
    yield "## Where the time goes"
    yield ""
    yield from owners(found.profile)
    own, read_only = results[NOTHING], results[READ]
    yield (
        f"With a target that takes everything at once a worker needs {own.cpu:.2f} s of CPU for "
        f"100,000 states; to read and decode them with aiokafka alone takes {read_only.cpu:.2f} s."
    )
    yield ""
    yield from profiles({OURS: found.profile})


def _targets(found: Found) -> Iterator[Target]:
    results, cost = found.results, found.bad_row
    ours = results[OURS]

    def ratio(name: str) -> float:
        return ours.per_second / results[name].per_second

    wrong = ours.faults
    yield Target("to commcare-export's first load (aim 50)", ratio(EXPORT), 25)
    yield Target("to Debezium, fields vary (aim 12)", ratio(VARYING), 8)
    yield Target("to the serial bound (aim 0.6)", ratio(BOUND), 0.4)
    small = results[SMALL].per_second / ours.per_second
    yield Target("at 100 a batch, to 2,000", small, 0.7)
    yield Target("cases missing or stale", wrong.missing + wrong.stale, 0, at_least=False)
    yield Target("values kept or lost", wrong.kept + wrong.lost + wrong.other, 0, at_least=False)
    yield Target("one bad row of 2,000 in ms", cost.refused, 50, at_least=False)
    yield Target("RSS in MB", ours.rss, 150, at_least=False)
    yield Target("`http`, requests a second", results[HTTP].per_second, 1000)
    yield Target("the Parquet writer, rows a second", found.parquet, 100_000)


@click.command()
@click.option("--events", default=100_000, show_default=True, help="States to write.")
@click.option("--rounds", default=3, show_default=True, help="Measurements for each median.")
@click.option("--out", default=RESULTS, type=click.Path(path_type=Path), show_default=True)
def main(events: int, rounds: int, out: Path) -> None:
    """Measure, print the tables, write them to a file."""
    started = time.monotonic()
    tools = Tools.made(TOOLS)
    before = taken_by_others()
    with tempfile.TemporaryDirectory(prefix="casewire-bench-") as name:
        folder = Path(name)
        with running_kafka(folder / "kafka") as kafka, tuned_postgres() as postgres:
            found = uvloop.run(measured(Lab(kafka, postgres, tools, folder), events, rounds))
    publish([*_heading(events, rounds), *_tables(found)], (before, taken_by_others()), out)
    click.echo(f"{time.monotonic() - started:.0f} s", err=True)


if __name__ == "__main__":
    sys.exit(main())
