"""Whether the processes of the installation run and are ready."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from casewire.config import Config
from casewire.doctor.processes import ask_all, missing_roles
from casewire.health import running
from casewire.supervisor import ask_ready

#: Several people look at the same processes.
_FRESH_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Process:
    """A process, or a role without one. `problem` is why it cannot work now, empty if it can."""

    role: str
    problem: str


@dataclass(slots=True)
class Processes:
    """Asks when it is asked, for all who look at once."""

    config: Config
    _told: Sequence[Process] = ()
    _told_at: float | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def look(self) -> Sequence[Process]:
        """Return what the processes say now, or have said a moment ago."""
        async with self._lock:
            if self._told_at is None or time.monotonic() - self._told_at > _FRESH_SECONDS:
                self._told = await ask_processes(self.config)
                self._told_at = time.monotonic()
            return self._told


async def ask_processes(config: Config) -> Sequence[Process]:
    """Ask the processes where the configuration says that they are, else those of this machine.

    On a single machine a role that does not run is told of too.
    """
    if config.machine.processes:
        asked = await ask_all(config.machine.processes)
        return [Process(each.role, each.problem) for each in asked]
    found = [each for each in running(config.run_dir) if each.role != "broker"]
    reasons = await asyncio.gather(*(ask_ready(each.address) for each in found))
    told = [
        Process(each.role, f"not ready: {reason}" if reason else "")
        for each, reason in zip(found, reasons, strict=True)
    ]
    told += [Process(role, "does not run") for role in missing_roles(config)]
    return sorted(told, key=lambda each: each.role)
