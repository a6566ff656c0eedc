"""One measurement: wrk against a server, and what the server's processes took for it."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import orjson
import requests

from benchmarks.machine import cpu_seconds, rss_mb

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parent.parent

BODY: Final = _ROOT / "tests" / "fixtures" / "hq" / "form_xml_with_case.xml"
#: What HQ sends beside Host, Content-Length and credentials (protocol.md §1.0).
HEADERS: Final[Mapping[str, str]] = {
    "User-Agent": "python-requests/2.32.3",
    "Accept-Encoding": "gzip, deflate",
    "Accept": "*/*",
    "Content-Type": "text/xml",
    "received-on": "2026-11-22T10:00:00.000000Z",
}


@dataclass(frozen=True, slots=True)
class Mode:
    """How clients behave: so many at once, with a new connection for each request or not."""

    name: str
    connections: int
    close: bool = False
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """`cpu` in seconds for 10,000 requests, latencies in milliseconds, `rss` in MB a process.

    `errors` counts answers outside 2xx and 3xx, and broken connections.
    """

    per_second: float
    cpu: float
    p50: float
    p99: float
    rss: float
    errors: int


def require_receipt(url: str, headers: Mapping[str, str], authority: Path | None) -> None:
    """Send one request as wrk will. Raises RuntimeError with the answer if it is no receipt."""
    answer = requests.post(
        url,
        data=BODY.read_bytes(),
        headers={**HEADERS, **headers},
        verify=str(authority) if authority else True,
        timeout=30,
    )
    if answer.status_code != 200:
        raise RuntimeError(f"{url} answers {answer.status_code}: {answer.text}")


def measure(
    url: str, pids: Sequence[int], mode: Mode, seconds: int, headers: Mapping[str, str]
) -> Sample:
    """Run wrk once; a second is spent before, unmeasured, to warm up."""
    _wrk(url, mode, 1, headers)
    before = sum(cpu_seconds(pid) for pid in pids)
    said = _wrk(url, mode, seconds, headers)
    cpu = sum(cpu_seconds(pid) for pid in pids) - before
    requests = said["requests"]
    return Sample(
        per_second=requests / (said["microseconds"] / 1e6),
        cpu=cpu / max(requests, 1) * 10_000,
        p50=said["p50"] / 1000,
        p99=said["p99"] / 1000,
        rss=max(rss_mb(pid) for pid in pids),
        errors=said["refused"] + said["broken"],
    )


def middle(samples: Sequence[Sample]) -> Sample:
    """Return the median of each number, and all errors."""
    return Sample(
        per_second=median(sample.per_second for sample in samples),
        cpu=median(sample.cpu for sample in samples),
        p50=median(sample.p50 for sample in samples),
        p99=median(sample.p99 for sample in samples),
        rss=median(sample.rss for sample in samples),
        errors=sum(sample.errors for sample in samples),
    )


def _wrk(url: str, mode: Mode, seconds: int, headers: Mapping[str, str]) -> dict[str, int]:
    sent = {**HEADERS, **headers, "Connection": "close" if mode.close else "keep-alive"}
    command = [
        "wrk", "-t2", f"-c{mode.connections}", f"-d{seconds}s", "--timeout", "10s",
        "-s", str(_HERE / "hq.lua"), url, "--", str(BODY),
        *(part for pair in sent.items() for part in pair),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True, timeout=seconds + 30)
    numbers: dict[str, int] = orjson.loads(done.stdout.strip().splitlines()[-1])
    return numbers
