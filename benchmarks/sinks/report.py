"""The tables that `make bench-sinks` prints and writes."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Final, TypeAlias

from benchmarks.sinks.measure import Sample
from benchmarks.sinks.workload import Faults

Results: TypeAlias = Mapping[str, Sample]
"""The medians by name of the writer."""

#: Whose functions a profile is divided among, by what their paths hold; the first that fits.
_OWNERS: Final = {
    "Faust and mode": ("/faust/", "/mode/"),
    "aiokafka": ("/aiokafka/",),
    "psycopg": ("/psycopg",),
    "Casewire: from record to message, delivery, deliveries": ("/streams/", "streams/"),
    "Casewire: from message to rows and SQL": ("/sinks/", "sinks/", "/schemas/", "schemas/"),
}


def compared(results: Results, base: str) -> Iterator[str]:
    """Yield a table of what each writer takes, with ratios to one."""
    yield (
        f"| | events/s | to {base} | CPU s/100k | PostgreSQL's CPU s/100k | broker's CPU s/100k "
        "| RSS MB |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, sample in results.items():
        yield (
            f"| {name} | {sample.per_second:,.0f} "
            f"| {sample.per_second / results[base].per_second:.3f} | {sample.cpu:.2f} "
            f"| {sample.postgres:.2f} | {sample.broker:.2f} | {sample.rss:.0f} |"
        )
    yield ""


def faulty(results: Results) -> Iterator[str]:
    """Yield a table of what is not so in the end, the most of all rounds."""
    names = [each.name for each in fields(Faults)]
    yield "| | cases missing | cases stale | old values kept | values lost | other values |"
    yield "| --- |" + " ---: |" * len(names)
    for writer, sample in results.items():
        counts = " | ".join(f"{getattr(sample.faults, name):,}" for name in names)
        yield f"| {writer} | {counts} |"
    yield ""


def owners(samples: Counter[str]) -> Iterator[str]:
    """Yield whose functions a process was found in."""
    found: Counter[str] = Counter()
    for function, count in samples.items():
        place = function.partition(" (")[2]
        owner = next(
            (name for name, parts in _OWNERS.items() if any(part in place for part in parts)),
            "the rest: event loop, metrics, JSON",
        )
        found[owner] += count
    total = found.total() or 1
    yield "| whose function it is in | share of the samples |"
    yield "| --- | ---: |"
    for owner, count in found.most_common():
        yield f"| {owner} | {count / total:.0%} |"
    yield ""
