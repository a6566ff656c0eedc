"""Keeps processes running: starts them in order, anew when they die, and stops them in order."""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import aiohttp

from casewire.addresses import Address
from casewire.health import running
from schemas.errors import UnavailableError

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
#: A process that ran for so long died of something new.
STEADY_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1
_LOG_LINES: Final = 15
_LARGEST_LOG: Final = 64 * 1024 * 1024

Probe: TypeAlias = Callable[[int], Awaitable[str | None]]
"""Asks whether the process of that id is ready: None if it is, else the reason why not."""

Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A process to keep running.

    `essential`: without it nothing works, so that its death at start ends the start. `ready`
    probes it. It gets `stop_seconds` between SIGTERM and SIGKILL.
    """

    name: str
    command: Sequence[str]
    ready: Probe
    essential: bool = True
    ready_seconds: float = 60
    stop_seconds: float = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all processes share: logs go to `run_dir`; `say` tells a person what happens."""

    run_dir: Path
    env: Mapping[str, str]
    say: Say

    def log(self, role: Role) -> Path:
        return self.run_dir / f"{role.name}.log"


def delay_after(previous: float, ran_seconds: float) -> float:
    """Return how many seconds to wait before a process that died is started anew."""
    if ran_seconds >= STEADY_SECONDS or previous == 0:
        return FIRST_DELAY
    return min(previous * 2, LONGEST_DELAY)


@dataclass(slots=True)
class Keeper:
    """Keeps the process of one role running from `start` until `stop`."""

    role: Role
    around: Surroundings
    process: asyncio.subprocess.Process | None = None
    _task: asyncio.Task[None] | None = None
    _was_ready: bool = False
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep())

    async def until_ready(self) -> str | None:
        """Return None once the process is ready, or why a role that is not essential is not yet.

        Raises UnavailableError if an essential one died, or is not ready in time.
        """
        assert self._task is not None, "start comes first"  # noqa: S101
        reason: str | None = "it has not started"
        deadline = time.monotonic() + self.role.ready_seconds
        while time.monotonic() < deadline:
            if self._task.done():
                self._task.result()
                return "it was stopped"
            if self.process is not None:
                reason = await self.role.ready(self.process.pid)
                if reason is None:
                    self._was_ready = True
                    return None
            await asyncio.sleep(_POLL_SECONDS)
        if self.role.essential:
            raise UnavailableError(
                f"{self.role.name} is not ready after {self.role.ready_seconds:.0f} s ({reason}); "
                f"see {self.around.log(self.role)}"
            )
        return reason

    async def stop(self) -> None:
        """Have the process end, by force if it takes too long."""
        self._stopping.set()
        if self.process is not None and self.process.returncode is None:
            await self._end(self.process)
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        process.terminate()
        try:
            async with asyncio.timeout(self.role.stop_seconds):
                await process.wait()
        except TimeoutError:
            self.around.say(
                f"{self.role.name} did not stop within {self.role.stop_seconds:.0f} s: killed"
            )
            process.kill()
            await process.wait()

    async def _keep(self) -> None:
        delay = 0.0
        while not self._stopping.is_set():
            began = time.monotonic()
            self.process = await spawn(self.role, self.around)
            if self._stopping.is_set():  # stop came while the process was being made
                await self._end(self.process)
            status = await self._ended(self.process)
            if self._stopping.is_set():
                return
            if self.role.essential and not self._was_ready:
                raise UnavailableError(crash_report(self.role, self.around, status))
            delay = delay_after(delay, time.monotonic() - began)
            self.around.say(
                f"{self.role.name} {how_it_ended(status)}; starting it anew in {delay:g} s, "
                f"its log is {self.around.log(self.role)}"
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        """Return a process's exit status.

        One that was started anew is asked meanwhile until it is ready: a broker is announced by
        whoever asks.
        """
        asking = asyncio.create_task(self._asked(process.pid)) if self._was_ready else None
        try:
            return await process.wait()
        finally:
            if asking is not None:
                asking.cancel()

    async def _asked(self, pid: int) -> None:
        reason: str | None = "it has not been asked"
        while reason is not None:
            await asyncio.sleep(_POLL_SECONDS)
            # On a full disk nothing can be announced yet.
            with contextlib.suppress(OSError):
                reason = await self.role.ready(pid)


async def spawn(role: Role, around: Surroundings) -> asyncio.subprocess.Process:
    """Start the process of a role in a session of its own; on Linux it ends with its parent."""
    log = around.log(role)
    if log.exists() and log.stat().st_size > _LARGEST_LOG:
        log.replace(log.with_suffix(".log.1"))
    with_parent = ("setpriv", "--pdeathsig", "TERM", "--") if shutil.which("setpriv") else ()
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *with_parent,
            *role.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(around.env),
            # Ctrl-C on a terminal goes to us alone: we stop the others in order.
            start_new_session=True,
        )


def how_it_ended(status: int) -> str:
    """Return a process's exit status in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def crash_report(role: Role, around: Surroundings, status: int) -> str:
    """Return a sentence and the last lines of the log of a process that died at start."""
    log = around.log(role)
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
        lines = file.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
    last = "".join(f"\n  {line}" for line in lines)
    return f"{role.name} {how_it_ended(status)} at start; its log {log} ends with:{last}"


def health_probe(run_dir: Path) -> Probe:
    """Return a probe that asks the health address which a process announced in `run_dir`."""

    async def probe(pid: int) -> str | None:
        for process in running(run_dir):
            if process.pid == pid:
                return await ask_ready(process.address)
        return "it does not tell its health yet"

    return probe


async def ask_ready(address: str) -> str | None:
    """Ask a process at its health address; return None, or the reason why it is not ready."""
    timeout = aiohttp.ClientTimeout(total=5)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{address}/health/ready") as answer,
        ):
            return None if answer.status == 200 else (await answer.text()).strip()
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"its health address {address} does not answer ({type(error).__name__})"


def port_probe(address: Address) -> Probe:
    """Return a probe that tries to connect."""

    async def probe(pid: int) -> str | None:
        try:
            _, writer = await asyncio.open_connection(address.host, address.port)
        except OSError as error:
            return f"{address} does not answer ({error.strerror})"
        writer.close()
        await writer.wait_closed()
        return None

    return probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run on one machine.

    `prepare` runs when the broker is ready; then all roles start. `stages` are in the order in
    which they stop; the broker, if there is one, starts first and stops last.
    """

    around: Surroundings
    broker: Role | None
    prepare: Callable[[], Awaitable[None]]
    stages: Sequence[Sequence[Role]]


async def keep_running(plan: Plan, then: Callable[[], Awaitable[None]]) -> None:
    """Start everything, call `then` when it is ready, and keep it running until a signal.

    SIGINT or SIGTERM stop everything in order, at any moment. Raises what kept it from starting,
    or what `then` raises, after everything is stopped.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    broker = [] if plan.broker is None else [Keeper(plan.broker, plan.around)]
    stages = [[Keeper(role, plan.around) for role in stage] for stage in plan.stages]
    work = asyncio.create_task(_start(plan, broker, stages, then))
    signalled = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([work, signalled], return_when=asyncio.FIRST_COMPLETED)
        if work.done() and work.exception() is None:
            await signalled
    finally:
        plan.around.say("stopping")
        work.cancel()
        signalled.cancel()
        await asyncio.wait([work])
        for stage in [*stages, broker]:
            await asyncio.gather(*(keeper.stop() for keeper in stage))
    if not work.cancelled():
        work.result()


async def _start(
    plan: Plan,
    broker: Sequence[Keeper],
    stages: Sequence[Sequence[Keeper]],
    then: Callable[[], Awaitable[None]],
) -> None:
    await _start_all(broker, plan.around)
    await plan.prepare()
    await _start_all([keeper for stage in stages for keeper in stage], plan.around)
    await then()


async def _start_all(keepers: Sequence[Keeper], around: Surroundings) -> None:
    for keeper in keepers:
        keeper.start()
    reasons = await asyncio.gather(*(keeper.until_ready() for keeper in keepers))
    for keeper, reason in zip(keepers, reasons, strict=True):
        if reason is not None:
            around.say(f"{keeper.role.name} is not ready yet ({reason}); it goes on trying")
