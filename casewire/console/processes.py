"""What runs on the console's own machine, and how it does."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from casewire.health import running
from casewire.supervisor import ask_ready


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a role. `problem` is why it cannot work now, empty if it can."""

    role: str
    pid: int
    version: str
    problem: str


async def processes(run_dir: Path) -> Sequence[Process]:
    """Ask each process of this machine whether it can work; the broker has nothing to ask."""
    found = [each for each in running(run_dir) if each.role != "broker"]
    reasons = await asyncio.gather(*(ask_ready(each.address) for each in found))
    return [
        Process(each.role, each.pid, each.version, reason or "")
        for each, reason in zip(found, reasons, strict=True)
    ]
