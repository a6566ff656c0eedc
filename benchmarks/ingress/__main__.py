"""`python -m benchmarks.ingress`: see docs/benchmarks.md."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from benchmarks.ingress.load import Mode, Sample, measure, middle, require_receipt
from benchmarks.ingress.report import Target, costs, measured, verdicts
from benchmarks.ingress.servers import Lab, Server, Variant, lab
from benchmarks.machine import described, publish, taken_by_others
from casewire.hq_logins import basic
from ingress.secrets_store import scrypt_text, sha256_text
from tests.servers import running_kafka

_HERE: Final = Path(__file__).parent
RESULTS: Final = _HERE.parent / "results" / "ingress.md"

KEEP: Final = Mode("64 keep-alive", 64)
CLOSE: Final = Mode("64, a new connection a request", 64, close=True)
MANY: Final = Mode("512 keep-alive, 2 processes", 512, processes=2)
MODES: Final = (KEEP, CLOSE, MANY)

PACKAGES: Final = ("starlette", "uvicorn", "uvloop", "httptools", "aiokafka")

TARGETS: Final = (
    Target(KEEP.name, 0.65, 0.8),
    Target(CLOSE.name, 0.9, 1.0),
    Target(MANY.name, 0.75, 0.9),
)
GO: Final = "Go"
OURS: Final = "Casewire"

CHOSEN: Final = "a chosen password"
GENERATED: Final = "0123456789abcdef" * 4
VARIANTS: Final = (
    Variant("no credentials"),
    Variant(
        "Basic, chosen password",
        credential='kind = "basic"\nusername = "hq"',
        stored=scrypt_text(CHOSEN),
        headers={"Authorization": basic("hq", CHOSEN)[1]},
    ),
    Variant(
        "API key, generated",
        credential='kind = "api-key"',
        stored=sha256_text(GENERATED),
        headers={"Authorization": GENERATED},
    ),
    Variant(
        "Bearer, one token for all",
        credential='kind = "bearer"\nusername = "hq"',
        stored=sha256_text(GENERATED),
        secret=GENERATED,
    ),
    Variant("no spool", keys='spool = "off"\n'),
    Variant("metrics read ten times a second", scraped=True),
    Variant("TLS", scheme="https"),
)


@click.command()
@click.option("--seconds", default=3, show_default=True, help="Length of one measurement.")
@click.option("--rounds", default=3, show_default=True, help="Measurements for each median.")
@click.option("--out", default=RESULTS, type=click.Path(path_type=Path), show_default=True)
def main(seconds: int, rounds: int, out: Path) -> None:
    """Measure, print the tables, write them to a file."""
    started = time.monotonic()
    before = taken_by_others()
    lines = [*_heading(seconds, rounds)]
    with tempfile.TemporaryDirectory(prefix="casewire-bench-") as name:
        folder = Path(name)
        binary = folder / "go"
        subprocess.run(["go", "build", "-o", str(binary), "."], cwd=_HERE / "go", check=True)
        with running_kafka(folder / "kafka") as broker:
            for flushed in (True, False):
                with lab(broker, folder) as place:
                    lines += _compared(
                        place, binary, flushed=flushed, seconds=seconds, rounds=rounds
                    )
            with lab(broker, folder) as place:
                lines += _features(place, seconds, rounds)
    publish(lines, (before, taken_by_others()), out)
    click.echo(f"{time.monotonic() - started:.0f} s", err=True)


def _heading(seconds: int, rounds: int) -> Iterator[str]:
    yield "# The ingress, measured"
    yield ""
    yield "Made by `make bench-ingress`; docs/benchmarks.md says how to read it."
    yield ""
    yield from described(PACKAGES)
    go = subprocess.run(["go", "version"], capture_output=True, text=True, check=True)
    yield f"- {go.stdout.strip()}"
    yield f"- medians of {rounds} interleaved measurements of {seconds} s"
    yield ""


def _compared(
    place: Lab, binary: Path, *, flushed: bool, seconds: int, rounds: int
) -> Iterator[str]:
    kafka = place.topics("flushed" if flushed else "unflushed", flushed=flushed)
    ours = Variant(OURS)
    one = [
        place.noop(),
        place.go(binary, kafka),
        place.go(binary, kafka, headers=True),
        place.casewire(ours, kafka),
    ]
    connect = place.connect(kafka)
    one += [connect] if connect else []
    two = [place.noop(2), *one[1:3], place.casewire(ours, kafka, 2), *one[4:]]
    results = _measured({KEEP: one, CLOSE: one, MANY: two}, seconds, rounds)
    yield f"## The topic {'with' if flushed else 'without'} `flush.messages=1`"
    yield ""
    if connect is None:
        yield "Redpanda Connect is not installed and was left out."
        yield ""
    yield from measured([server.name for server in one], MODES, results, GO)
    yield from verdicts(TARGETS, results, OURS, GO)
    yield ""


def _features(place: Lab, seconds: int, rounds: int) -> Iterator[str]:
    kafka = place.topics("features", flushed=True)
    servers = [place.casewire(variant, kafka) for variant in VARIANTS]
    modes = (KEEP, CLOSE)
    results = _measured(dict.fromkeys(modes, servers), seconds, rounds)
    yield "## What each feature costs"
    yield ""
    yield f"Ratios to an ingress with {VARIANTS[0].name}; the topic is flushed."
    yield ""
    yield from costs([server.name for server in servers], modes, results)


def _measured(
    plan: Mapping[Mode, Sequence[Server]], seconds: int, rounds: int
) -> Mapping[tuple[str, str], Sample]:
    """Measure round by round, so that what the machine does meanwhile hits all alike."""
    samples: dict[tuple[str, str], list[Sample]] = {}
    for servers in plan.values():
        for server in servers:
            require_receipt(server.url, server.headers, server.authority)
    for _ in range(rounds):
        for mode, servers in plan.items():
            for server in servers:
                sample = measure(server.url, server.pids, mode, seconds, server.headers)
                samples.setdefault((server.name, mode.name), []).append(sample)
                click.echo(f"{server.name}, {mode.name}: {sample.per_second:,.0f}/s", err=True)
    return {key: middle(each) for key, each in samples.items()}


if __name__ == "__main__":
    sys.exit(main())
