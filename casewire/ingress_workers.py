"""`casewire ingress --workers N`: N processes on one port, kept running by a small parent."""

import asyncio
import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from casewire.supervisor import delay_after, how_it_ended

#: A worker ends within 10 s by itself.
_STOP_SECONDS: Final = 15.0

_log = structlog.get_logger(__name__)


def worker_command(file: Path | None) -> Sequence[str]:
    """Return the command of one worker, which ends with its parent where the system can do that."""
    with_parent = ("setpriv", "--pdeathsig", "TERM", "--") if shutil.which("setpriv") else ()
    config = () if file is None else ("--config", str(file))
    return (*with_parent, sys.executable, "-m", "casewire", *config, "ingress")


async def keep_workers(command: Sequence[str], number: int) -> None:
    """Keep that many processes running until SIGTERM or SIGINT; then stop them, and return.

    A SIGHUP goes to each of them.
    """
    stop = asyncio.Event()
    workers = [Worker(command, stop) for _ in range(number)]
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)

    def hang_up() -> None:
        for worker in workers:
            worker.send(signal.SIGHUP)

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    await asyncio.gather(*(worker.keep() for worker in workers))


class Worker:
    """One process: started anew when it ends, until `stop` is set."""

    def __init__(self, command: Sequence[str], stop: asyncio.Event) -> None:
        self._command = command
        self._stop = stop
        self._process: asyncio.subprocess.Process | None = None

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def keep(self) -> None:
        stopping = asyncio.create_task(self._stop.wait())
        delay = 0.0
        while not self._stop.is_set():
            began = time.monotonic()
            # A session of its own: Ctrl-C on a terminal goes to the parent alone.
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command, start_new_session=True
            )
            ending = asyncio.create_task(process.wait())
            await asyncio.wait([ending, stopping], return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                await self._end(process)
                return
            delay = delay_after(delay, time.monotonic() - began)
            _log.warning(
                "an ingress ended; it is started anew",
                child=process.pid,
                how=how_it_ended(ending.result()),
                seconds=delay,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(stopping), delay)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            _log.error("an ingress did not stop and is killed", child=process.pid)
            process.kill()
            await process.wait()
