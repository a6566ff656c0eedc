"""Health and metrics of a process, on an address of their own (contract §3)."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Self

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from casewire.addresses import Address
from casewire.blocked import ending_if_blocked
from casewire.role_metrics import Probe, RoleMetrics
from schemas.errors import UnavailableError

_PORTS_TRIED: Final = 100


@dataclass(frozen=True, slots=True)
class Health:
    """Two probes; each returns None if all is well, else the reason why not.

    `live`: whether this process does its work, or has to be started anew. `ready`: whether it can
    take work now.
    """

    live: Probe
    ready: Probe


class Running(msgspec.Struct, frozen=True):
    """A running process, as its file `run/<role>-<pid>.json` tells. `address` is host:port.

    `started` tells it from a later process of the same id: see `start_time`. `state_api` is where
    a streams worker answers questions about states, host:port. `version` is Casewire's.
    """

    role: str
    pid: int
    address: str
    started: str
    state_api: str = ""
    version: str = ""

    @classmethod
    def of(cls, role: str, pid: int, address: Address, state_api: str = "") -> Self:
        started = start_time(pid) or ""
        return cls(role, pid, str(address), started, state_api, metadata.version("casewire"))

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started


def start_time(pid: int) -> str | None:
    """Return what the system says of when a process started; None if it does not run.

    Without Linux's /proc that is the empty text for every process that runs.
    """
    if not Path("/proc/self").exists():
        return "" if _signalable(pid) else None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): the name in parentheses may hold anything; state is field 3, starttime field 22.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _signalable(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def running(run_dir: Path) -> Sequence[Running]:
    """Return the processes that run now, by role; remove what dead ones left behind."""
    found = []
    for file in sorted(run_dir.glob("*-*.json")):
        try:
            process = msgspec.json.decode(file.read_bytes(), type=Running)
        except FileNotFoundError:
            continue
        except msgspec.DecodeError:
            process = None
        if process is not None and process.alive:
            found.append(process)
        else:
            file.unlink(missing_ok=True)
    return found


def announce(run_dir: Path, process: Running) -> Path:
    """Write the file that tells of a process; return it."""
    run_dir.mkdir(parents=True, exist_ok=True)
    return _written(run_dir / f"{process.role}-{process.pid}.json", process)


def announce_target(run_dir: Path, process: Running) -> Path:
    """Write the file by which Prometheus finds a process (its `file_sd_configs`); return it.

    One that ended out of order leaves its file, so that Prometheus misses it, until a process of
    its role starts.
    """
    folder = run_dir / "targets"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{process.role}-*.json"):
        pid = old.stem.removeprefix(f"{process.role}-")
        if pid.isdecimal() and start_time(int(pid)) is None:
            old.unlink(missing_ok=True)
    found = [{"targets": [process.address], "labels": {"casewire_role": process.role}}]
    return _written(folder / f"{process.role}-{process.pid}.json", found)


def _written(file: Path, content: object) -> Path:
    """Write a file at once, as JSON; return it."""
    new = file.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(content))
    new.replace(file)
    return file


def health_app(health: Health, role: str, folder: Path) -> Starlette:
    """Return the application with `/health/live`, `/health/ready` and `/metrics`.

    `folder`: where this process stores what it stores.
    """
    own = CollectorRegistry()
    own.register(RoleMetrics(role, folder, live=health.live, ready=health.ready))

    async def live(request: Request) -> Response:
        return _probed(health.live)

    async def ready(request: Request) -> Response:
        return _probed(health.ready)

    async def metrics(request: Request) -> Response:
        text = generate_latest(own) + generate_latest()
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})

    return Starlette(
        routes=[
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/metrics", metrics),
        ]
    )


def _probed(probe: Probe) -> Response:
    reason = probe()
    return PlainTextResponse("ok\n") if reason is None else PlainTextResponse(f"{reason}\n", 503)


class _Server(uvicorn.Server):
    """A server inside a process that has signal handlers of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(application: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an application in this loop until the end of the block."""
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        # Each application says itself which proxies it believes.
        proxy_headers=False,
        server_header=False,
    )
    server = _Server(config)
    with listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await task


@contextlib.asynccontextmanager
async def serving_health(
    health: Health, *, role: str, bind: str, run_dir: Path, state_api: str = ""
) -> AsyncIterator[Address]:
    """Serve health and metrics in this loop, at the first free port from `bind` up; give it.

    Raises UnavailableError if a hundred ports in a row are taken.
    """
    address, listener = first_free(Address.parse(bind), "CASEWIRE_METRICS_BIND")
    async with serving(health_app(health, role, run_dir), listener):
        process = Running.of(role, os.getpid(), address, state_api)
        files = (announce(run_dir, process), announce_target(run_dir, process))
        try:
            with ending_if_blocked():
                yield address
        finally:
            for file in files:
                file.unlink(missing_ok=True)


def first_free(first: Address, setting: str) -> tuple[Address, socket.socket]:
    """Return the first free port from an address up, and a socket that listens there.

    Raises UnavailableError, naming the setting to change, if a hundred ports are taken.
    """
    for port in range(first.port, min(first.port + _PORTS_TRIED, 65536)):
        address = Address(first.host, port)
        with contextlib.suppress(OSError):
            return address, address.listening()
    raise UnavailableError(f"no port is free from {first} up; set {setting} to another address")
