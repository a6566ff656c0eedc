"""What to run for so many events and cases, from what was measured; see docs/scale.md.

`python -m benchmarks.scale` reads the benchmarks' results (benchmarks/results/), so that it knows
no figure of its own. It writes benchmarks/results/scale.md.
"""

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

RESULTS: Final = Path(__file__).parent / "results"
#: Of a core, what a process is to have in use at the rate that is planned for.
LOAD: Final = 0.5
#: States that a worker may have to read from the topic when it has lost its disk, in seconds.
RECOVERY_SECONDS: Final = 600
#: Room for records that compaction has not removed yet, and for RocksDB's files while it merges.
SLACK: Final = 2
_DAY: Final = 86_400
_KEPT_DAYS: Final[Mapping[str, int]] = {
    "captured": 30, "bodies": 30, "forms": 30, "cases": 30, "case-changes": 30, "deliveries": 30,
}  # fmt: skip
_COMPACTED: Final = ("case-state", "case-folds", "form-state")


@dataclass(frozen=True, slots=True)
class Measured:
    """`cpu`: µs an event by role. `stored`: bytes an event on the broker's disk, by topic.

    Of states: bytes on the topic and in a table on disk, MB a million of them in memory, and the
    seconds that a worker takes to read a million from the topic onto its disk. `sustained`: events
    a second that one machine of `cores` did, all roles, broker, database and sender together.
    """

    cpu: Mapping[str, float]
    stored: Mapping[str, float]
    state_bytes: float
    table_bytes: float
    memory_mb: float
    recovery: float
    sustained: float
    cores: int


@dataclass(frozen=True, slots=True)
class Need:
    """`events` a second at the peak, `mean` over a month; `replication` of topics."""

    name: str
    events: float
    mean: float
    cases: int
    replication: int = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """Processes by role, and what the machines under them must have. `disk` is the brokers' in GB.

    `tables`: GB on disk for each streams worker. `recovery`: seconds for a worker that begins with
    an empty disk. `database`: cores of PostgreSQL for one sink. `cores`: what all of it has in use
    at the peak.
    """

    ingress: int
    streams: int
    sinks: int
    partitions: int
    broker_cores: float
    disk: float
    tables: float
    memory_mb: float
    recovery: float
    database: float
    cores: float


def measured(folder: Path = RESULTS) -> Measured:
    """Read the results. Raises ValueError if one says something else than it did."""
    both = (folder / "end_to_end.md").read_text(encoding="utf-8")
    tables = (folder / "tables.md").read_text(encoding="utf-8")
    rows = _tables(both)
    states = {row["tables"]: row for row in _rows(tables, "tables")}
    million = _number(_found(r"- ([\d,]+) states of", tables)) / 1e6
    disk, memory = states["on disk, from the topic"], states["in memory, from the topic"]
    cpu = {role: _number(cell) for role, cell in rows["cpu"].items() if role not in _NOT_ROLES}
    return Measured(
        cpu=cpu,
        stored={topic: _number(cell) for topic, cell in rows["stored"].items()},
        state_bytes=_number(_found(r"disk: ([\d,]+) bytes a state", tables)),
        table_bytes=_number(disk["bytes a state on disk"]),
        memory_mb=_number(memory["RSS MB"]) / million,
        recovery=_number(disk["recovery s"]) / million,
        sustained=_number(rows["rate"]["requests/s"]),
        cores=int(_found(r", (\d+) cores", both)),
    )


_NOT_ROLES: Final = ("", "gunicorn", "in all")


def _tables(text: str) -> Mapping[str, Mapping[str, str]]:
    """Return Casewire's row of each table of the end-to-end results that is needed."""
    ours = [row for row in _rows(text, "") if row.get("", "").startswith("Casewire")]
    stored = next(_rows(text.partition("## Bytes an event")[2], "captured"))
    return {
        "rate": next(row for row in ours if "requests/s" in row),
        "cpu": next(row for row in ours if "ingress" in row),
        "stored": stored,
    }


def _rows(text: str, first: str) -> Iterator[Mapping[str, str]]:
    """Yield the rows of the Markdown tables whose first column is called `first`."""
    header: Sequence[str] = ()
    for line in text.splitlines():
        if not line.startswith("|"):
            header = ()
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not header:
            header = cells
        elif header[0] == first and not set("".join(cells)) <= set("-: "):
            yield dict(zip(header, cells, strict=True))


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"the results have nothing like {pattern}: run the benchmarks again")
    return found.group(1)


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def limit(of: Measured) -> float:
    """Return the events a second at which a machine like the measured one has nothing left."""
    return of.cores * 1e6 / sum(of.cpu.values())


def planned(need: Need, of: Measured) -> Plan:
    """Return what to run for a need, with processes half busy at the peak."""
    workers = {
        role: _processes(need.events * of.cpu[role]) for role in ("ingress", "streams", "sink")
    }
    # Tables: no worker holds more states than it can read again in time.
    held = RECOVERY_SECONDS / of.recovery * 1e6
    streams = max(workers["streams"], math.ceil(need.cases / held))
    widest = max(streams, workers["sink"])
    kept = sum(of.stored.get(topic, 0) * days for topic, days in _KEPT_DAYS.items())
    compacted = need.cases * of.state_bytes * SLACK
    return Plan(
        ingress=workers["ingress"],
        streams=streams,
        sinks=workers["sink"],
        partitions=max(8, 2 ** math.ceil(math.log2(2 * widest))),
        broker_cores=need.events * of.cpu["broker"] * need.replication / 1e6 / LOAD,
        disk=(need.mean * _DAY * kept + compacted) * need.replication / 1e9,
        tables=need.cases * of.table_bytes * SLACK / streams / 1e9,
        memory_mb=need.cases / 1e6 * of.memory_mb / streams,
        recovery=need.cases / streams / 1e6 * of.recovery,
        database=need.events * of.cpu["PostgreSQL"] / 1e6 / LOAD,
        cores=need.events
        * (sum(of.cpu.values()) + of.cpu["broker"] * (need.replication - 1))
        / 1e6,
    )


def _processes(microseconds: float) -> int:
    """Return how many processes of one core each do so many µs of work a second; two at least."""
    return max(2, math.ceil(microseconds / 1e6 / LOAD))


NEEDS: Final = (
    Need("one project", 5, 1, 200_000, replication=1),
    Need("a ministry: 100 projects", 100, 20, 10_000_000),
    Need("all of CommCare: 10,000 projects", 2000, 500, 1_000_000_000),
)


def lines(needs: Sequence[Need], of: Measured) -> Iterator[str]:
    yield "# What to run"
    yield ""
    yield "Made by `python -m benchmarks.scale` of the results here; docs/scale.md explains it."
    yield ""
    yield (
        f"- Checked: at {sum(of.cpu.values()):,.0f} µs an event, {of.cores} cores end at "
        f"{limit(of):,.0f} events/s; {of.sustained:,.0f} were measured, the sender on the same "
        "cores."
    )
    yield f"- Processes have {LOAD:.0%} of a core in use at the peak; two of each role at least."
    yield f"- One sink, into PostgreSQL; another one costs {of.cpu['sink']:,.0f} µs an event more."
    yield ""
    plans = {need: planned(need, of) for need in needs}
    yield "| | " + " | ".join(need.name for need in plans) + " |"
    yield "| --- |" + " ---: |" * len(plans)
    for title, cells in _cells(plans).items():
        yield f"| {title} | " + " | ".join(cells) + " |"


def _cells(plans: Mapping[Need, Plan]) -> Mapping[str, Sequence[str]]:
    def of_needs(template: str) -> Sequence[str]:
        return [template.format(n=need, p=plan) for need, plan in plans.items()]

    return {
        "events/s at the peak": of_needs("{n.events:,.0f}"),
        "events/s on average": of_needs("{n.mean:,.0f}"),
        "cases": of_needs("{n.cases:,}"),
        "replication": of_needs("{n.replication}"),
        "partitions": of_needs("{p.partitions}"),
        "`casewire ingress`": of_needs("{p.ingress}"),
        "`casewire streams`": of_needs("{p.streams}"),
        "`casewire sink`": of_needs("{p.sinks}"),
        "brokers' cores": of_needs("{p.broker_cores:,.1f}"),
        "brokers' disks, GB": of_needs("{p.disk:,.0f}"),
        "tables on disk, GB a worker": of_needs("{p.tables:,.1f}"),
        "the same in memory, MB a worker": of_needs("{p.memory_mb:,.0f}"),
        "a worker with an empty disk is back after, s": of_needs("{p.recovery:,.0f}"),
        "PostgreSQL's cores": of_needs("{p.database:,.1f}"),
        "cores in use at the peak": of_needs("{p.cores:,.1f}"),
    }


@click.command()
@click.option("--events", type=float, help="A second, at the peak.")
@click.option("--mean", type=float, help="A second, on average; else a quarter of the peak.")
@click.option("--cases", type=int, default=1_000_000, show_default=True)
@click.option("--replication", type=int, default=3, show_default=True)
def main(events: float | None, mean: float | None, cases: int, replication: int) -> None:
    """Print what to run for a need, or write the table of docs/scale.md.

    Example: python -m benchmarks.scale --events 300 --cases 5000000
    """
    of = measured()
    if events is not None:
        mean = events / 4 if mean is None else mean
        click.echo("\n".join(lines([Need("yours", events, mean, cases, replication)], of)))
        return
    text = "\n".join(lines(NEEDS, of)) + "\n"
    (RESULTS / "scale.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    sys.exit(main())
