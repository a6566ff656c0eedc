"""Snapshots of many cases, posted by wrk, each by a connection of its own as HQ does it."""

import asyncio
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from benchmarks.end_to_end.servers import Way
from benchmarks.streams.events import visits
from benchmarks.streams.latency import SENT

_HERE: Final = Path(__file__).parent
CONNECTIONS: Final = 64
#: With a pace, there are so many that the time of an answer hardly counts against the pause.
PACED_CONNECTIONS: Final = 256
_THREADS: Final = 2
#: So many that a case comes again after seconds, not while its last snapshot is on its way.
_CASES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw: latencies in ms; `spent`: CPU seconds of each part for a million requests."""

    per_second: float
    p50: float
    p99: float
    broken: int
    requests: int
    began: float
    ended: float
    spent: Mapping[str, float]


async def load(way: Way, folder: Path, seconds: int, rate: float = 0) -> Load:
    """Post for so many seconds, so many a second, or as fast as 64 connections get answers."""
    before = {name: spent() for name, spent in way.spent.items()}
    began = time.time()
    said = await asyncio.to_thread(_wrk, way.url, _template(folder), seconds, rate)
    ended = time.time()
    requests = said["requests"]
    taken = {name: spent() - before[name] for name, spent in way.spent.items()}
    return Load(
        per_second=requests / (said["microseconds"] / 1e6),
        p50=said["p50"] / 1000,
        p99=said["p99"] / 1000,
        broken=said["refused"] + said["broken"],
        requests=requests,
        began=began,
        ended=ended,
        spent={name: each * 1e6 / requests for name, each in taken.items()},
    )


def _template(folder: Path) -> Path:
    """Write a snapshot with marks where wrk is to put the case, the time and the step."""
    value = orjson.loads(next(iter(visits(1))).body)
    value |= {"case_id": "@CASE@", "date_modified": "@TIME@", "server_date_modified": "@TIME@"}
    value["properties"]["visits"] = "@STEP@"
    file = folder / "template.json"
    file.write_bytes(orjson.dumps(value))
    return file


def _wrk(url: str, template: Path, seconds: int, rate: float) -> dict[str, int]:
    connections = PACED_CONNECTIONS if rate else CONNECTIONS
    command = [
        "wrk", f"-t{_THREADS}", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s",
        "-s", str(_HERE / "cases.lua"), url, "--", str(template), str(_CASES // _THREADS),
        f"{rate / connections:.3f}",
        *(part for pair in {**SENT, "Connection": "close"}.items() for part in pair),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True, timeout=seconds + 30)
    numbers: dict[str, int] = orjson.loads(done.stdout.strip().splitlines()[-1])
    return numbers
