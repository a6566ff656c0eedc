"""The tables that `make bench-streams` prints and writes."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.streams.latency import Latency
from benchmarks.streams.measure import Sample

Results: TypeAlias = Mapping[str, Sample]
"""The medians by name of the engine or of the job."""

_ROOT: Final = Path(__file__).parents[2]
_MOST_FUNCTIONS: Final = 8
_LEAST_SHARE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Target:
    """A number that is to be at least, or at most, `bound` (issue 5)."""

    what: str
    value: float
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def compared(results: Results, base: Sample, base_name: str) -> Iterator[str]:
    """Yield a table of results and their ratios to one."""
    yield (
        f"| | events/s | to {base_name} | CPU s/100k | to {base_name} | broker's CPU s/100k "
        "| cores | RSS MB |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, sample in results.items():
        yield (
            f"| {name} | {sample.per_second:,.0f} | {sample.per_second / base.per_second:.2f} "
            f"| {sample.cpu:.2f} | {sample.cpu / base.cpu:.2f} | {sample.broker:.2f} "
            f"| {sample.cores:.2f} | {sample.rss:.0f} |"
        )
    yield ""


def latencies(measured: Latency) -> Iterator[str]:
    yield f"- {measured.events:,} events: p50 {measured.p50:.0f} ms, p99 {measured.p99:.0f} ms"
    yield f"- the sender was late by {measured.sent_p99:.0f} ms (p99), which is counted in"
    yield ""


def verdicts(targets: Iterator[Target]) -> Iterator[str]:
    """Yield a table of targets, and whether each is met."""
    yield "| target | measured | |"
    yield "| --- | ---: | --- |"
    for target in targets:
        bound = f"{'at least' if target.at_least else 'at most'} {target.bound:,g}"
        value = f"{target.value:,.2f}" if target.value < 10 else f"{target.value:,.0f}"
        yield f"| {target.what}: {bound} | {value} | {'met' if target.met else '**missed**'} |"
    yield ""


def profiles(samples: Mapping[str, Counter[str]]) -> Iterator[str]:
    """Yield, for each job, the functions where its process was most often found."""
    for name, counts in samples.items():
        yield f"**{name}**"
        yield ""
        total = counts.total()
        for function, count in counts.most_common(_MOST_FUNCTIONS):
            if count >= _LEAST_SHARE * total:
                yield f"- {count / total:.0%} {_short(function)}"
        yield ""


def _short(function: str) -> str:
    """Return a function as `name (module)`, without where the module is installed."""
    name, _, place = function.partition(" (")
    place = place.rstrip(")").removeprefix(f"{_ROOT}/").rpartition("site-packages/")[2]
    return f"`{name}` ({place})"
