"""The tables that `make bench-ingress` prints and writes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from benchmarks.ingress.load import Mode, Sample

Results: TypeAlias = Mapping[tuple[str, str], Sample]
"""The medians by server's and mode's name."""

MOST_P99_MS: Final = 10
MOST_RSS_MB: Final = 80


@dataclass(frozen=True, slots=True)
class Target:
    """The least ratio of requests a second to Go's, and the one that is aimed at (issue 4)."""

    mode: str
    least: float
    aim: float


def measured(
    servers: Sequence[str], modes: Sequence[Mode], results: Results, base: str
) -> Iterator[str]:
    """Yield a table for each mode; ratios are to the server `base`."""
    for mode in modes:
        against = results[base, mode.name]
        yield f"**{mode.name}**"
        yield ""
        yield f"| server | req/s | to {base} | CPU s/10k | p50 ms | p99 ms | RSS MB | errors |"
        yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
        for server in servers:
            sample = results.get((server, mode.name))
            if sample is not None:
                yield _row(server, sample, against)
        yield ""


def _row(name: str, sample: Sample, against: Sample) -> str:
    return (
        f"| {name} | {sample.per_second:,.0f} | {sample.per_second / against.per_second:.2f} "
        f"| {sample.cpu:.2f} | {sample.p50:.1f} | {sample.p99:.1f} | {sample.rss:.0f} "
        f"| {sample.errors} |"
    )


def verdicts(targets: Sequence[Target], results: Results, ours: str, base: str) -> Iterator[str]:
    """Yield a table of targets, and whether each is met."""
    yield "| target | measured | |"
    yield "| --- | ---: | --- |"
    for target in targets:
        sample = results[ours, target.mode]
        ratio = sample.per_second / results[base, target.mode].per_second
        wanted = f"at least {target.least} of {base}'s, aim {target.aim}"
        yield f"| {target.mode}: {wanted} | {ratio:.2f} | {_said(ratio, target)} |"
        yield _bound(f"{target.mode}: p99 in ms", sample.p99, MOST_P99_MS)
        yield _bound(f"{target.mode}: RSS in MB a process", sample.rss, MOST_RSS_MB)


def _said(ratio: float, target: Target) -> str:
    if ratio < target.least:
        return "**missed**"
    return "met, aim too" if ratio >= target.aim else "met"


def _bound(what: str, value: float, most: float) -> str:
    return f"| {what}, at most {most} | {value:.1f} | {'met' if value <= most else '**missed**'} |"


def costs(variants: Sequence[str], modes: Sequence[Mode], results: Results) -> Iterator[str]:
    """Yield a table of what each variant does to speed and CPU, against the first one."""
    base, *others = variants
    heads = [f"{mode.name}: req/s | CPU" for mode in modes]
    yield f"| feature | {' | '.join(heads)} | RSS MB |"
    yield "| --- |" + " ---: | ---: |" * len(modes) + " ---: |"
    for variant in (base, *others):
        cells = []
        for mode in modes:
            sample, against = results[variant, mode.name], results[base, mode.name]
            cells.append(f"{sample.per_second / against.per_second:.2f}")
            cells.append(f"{sample.cpu / against.cpu:.2f}")
        rss = max(results[variant, mode.name].rss for mode in modes)
        yield f"| {variant} | {' | '.join(cells)} | {rss:.0f} |"
