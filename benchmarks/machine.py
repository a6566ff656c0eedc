"""What a benchmark says of the machine it ran on, and what a process took of it."""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import click

#: Of the kernel's clock, a second.
TICKS: Final = os.sysconf("SC_CLK_TCK")
_LOOK_SECONDS: Final = 5.0
#: What others may take of the machine's processors before what is measured does not stand.
_QUIET: Final = 0.1
BUSY: Final = (
    "**The machine was busy with other work: compare CPU only; what is said of rates, latencies "
    "and targets does not stand. Run it again on a quiet machine.**"
)


def taken_by_others() -> float:
    """Return the share of the machine's processors in use, over five seconds.

    Call it while the benchmark runs nothing. A load average would not do: it remembers for
    minutes what has ended.
    """
    idle, total = _idle_and_total()
    time.sleep(_LOOK_SECONDS)  # what is measured is this span
    idle_then, total_then = _idle_and_total()
    return 1 - (idle_then - idle) / (total_then - total)


def quiet(*shares: float) -> bool:
    """Whether what others took, before the run and after it, leaves what is measured standing."""
    return max(shares) <= _QUIET


def publish(lines: Sequence[str], others: tuple[float, float], out: Path) -> None:
    """Print results and write them to a file.

    They say what `others` took before the run and after it, and that they do not stand if it was
    too much.
    """
    before, after = others
    title, *rest = lines
    warning = [] if quiet(before, after) else ["", BUSY]
    note = f"Others took {before:.0%} of the processors before the run, {after:.0%} after."
    text = "\n".join([title, *warning, *rest, "", note]) + "\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    click.echo(text)


def _idle_and_total() -> tuple[int, int]:
    # proc(5): user, nice, system, idle, iowait, irq, softirq, steal; what follows is in user.
    first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    ticks = [int(each) for each in first[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def described(packages: Sequence[str]) -> Iterator[str]:
    """Yield what the numbers depend on, as lines of a list."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    yield f"- {now}, {os.cpu_count()} cores ({cpu}), {memory:.0f} GiB"
    yield f"- Linux {platform.release()}, Python {platform.python_version()}, {versions}"


def cpu_seconds(pid: int) -> float:
    """Return the user and system time that a process has taken."""
    # proc(5): the name in parentheses may hold anything; utime and stime are fields 14 and 15.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(pid: int) -> float:
    """Return what a process has in memory. Raises ValueError if it has ended."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has ended")


def log_bytes(data_dir: Path, topic: str) -> int:
    """Return what a broker with this data directory has on disk of a topic, without indexes."""
    return sum(file.stat().st_size for file in data_dir.glob(f"**/{topic}-*/*.log"))


def folder_bytes(folder: Path) -> int:
    """Return what a folder's files have on disk."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
