"""Casewire's roles as processes of their own, as a user runs them, on the tests' servers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import anyio

from casewire.config import load_config
from casewire.health import running
from casewire.progress import await_caught_up
from casewire.reading import read_topic
from casewire.sink_config import sources
from casewire.sums import Sums, count_sums
from schemas.settings import KafkaSettings
from schemas.values import Json
from streams.records import Record
from tests.servers import free_port

START_SECONDS = 90
CATCH_UP_SECONDS = 120


@dataclass
class System:
    """Roles on one data directory. `sinks` maps a sink's name to its keys in the configuration.

    `env` is added to the environment of the roles, `role_env` to that of single ones.
    """

    folder: Path
    kafka: KafkaSettings
    sinks: Mapping[str, Mapping[str, Json]]
    env: Mapping[str, str] = field(default_factory=dict)
    role_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    console_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def address(self, domain: str) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1/in/{domain}"

    @property
    def roles(self) -> Sequence[str]:
        return ("ingress", "streams", *self.sink_roles)

    @property
    def sink_roles(self) -> Sequence[str]:
        return [f"sink {name}" for name in self.sinks]

    @property
    def environment(self) -> Mapping[str, str]:
        return {**os.environ, **self.env}

    @property
    def config_file(self) -> Path:
        return self.folder / "casewire.toml"

    def write_config(self) -> None:
        lines = [
            f'data_dir = "{self.folder}/data"',
            f'metrics_bind = "127.0.0.1:{free_port()}"',
            f'console_bind = "127.0.0.1:{self.console_port}"',
            "[kafka]",
            f'bootstrap_servers = "{self.kafka.bootstrap_servers}"',
            f'topic_prefix = "{self.kafka.topic_prefix}"',
            f"partitions = {self.kafka.partitions}",
            f"replication = {self.kafka.replication}",
            "[ingress]",
            f'bind = "127.0.0.1:{self.port}"',
            "[streams]",
            "session_timeout_seconds = 6",
            f'bind = "127.0.0.1:{free_port()}"',
        ]
        for name, keys in self.sinks.items():
            lines.append(f"[sinks.{name}]")
            lines.extend(f"{key} = {_toml(value)}" for key, value in keys.items())
        self.config_file.write_text("\n".join(lines))

    def command(self, *arguments: str, program: Sequence[str] = ("-m", "casewire")) -> list[str]:
        """Return what runs `casewire` with arguments; `program` are Python's, before them."""
        return [sys.executable, *program, "--config", str(self.config_file), *arguments]

    def start(self, role: str, program: Sequence[str] = ("-m", "casewire")) -> None:
        """Start a role; several processes of one are told apart by what follows a `#`."""
        command = self.command(*role.partition("#")[0].split(), program=program)
        env = {**self.environment, **self.role_env.get(role, {})}
        with self.log(role).open("ab") as log:
            self.processes[role] = subprocess.Popen(command, stdout=log, stderr=log, env=env)

    def log(self, role: str) -> Path:
        return self.folder / (role.replace(" ", "-") + ".log")

    def kill(self, role: str) -> None:
        process = self.processes.pop(role)
        process.kill()
        process.wait()

    async def supervise(self) -> None:
        """Start anew what has ended by itself, as `casewire up` does."""
        while True:
            for role, process in list(self.processes.items()):
                if process.poll() is not None:
                    self.start(role)
            await anyio.sleep(0.5)

    async def ready(self, roles: Iterable[str], *, supervised: bool = False) -> None:
        """Return when each of the roles says that it is ready.

        Fail if one has ended, unless it is `supervised`: then it is started anew meanwhile.
        """
        async with aiohttp.ClientSession() as client:
            with anyio.fail_after(START_SECONDS):
                for role in roles:
                    while True:
                        self._require_running(role, supervised=supervised)
                        if await self._is_ready(client, role):
                            break
                        await anyio.sleep(0.1)

    def _require_running(self, role: str, *, supervised: bool) -> None:
        ended = self.processes[role].poll() is not None and not supervised
        assert not ended, f"{role} ended:\n{self.log(role).read_text()[-3000:]}"

    async def _is_ready(self, client: aiohttp.ClientSession, role: str) -> bool:
        process = self.processes[role]
        for one in running(self.folder / "data" / "run"):
            if one.pid == process.pid:
                with contextlib.suppress(aiohttp.ClientError):
                    async with client.get(f"http://{one.address}/health/ready") as answer:
                        return answer.status == 200
        return False

    @property
    def sources(self) -> Mapping[str, Sequence[str]]:
        """The topics (short names) that each sink reads. Without any the configuration has one."""
        configured = load_config(self.config_file, {}).sinks
        return sources({name: configured[name] for name in self.sinks})

    async def caught_up(self) -> None:
        """Return when all that was captured has gone through streams and into every sink."""
        with anyio.fail_after(CATCH_UP_SECONDS):
            await await_caught_up(self.kafka, self.sources, lambda _group, _left: None)

    async def sums(self) -> Sums:
        return await count_sums(self.kafka, self.sources)

    async def records(self, topic: str) -> Sequence[Record]:
        """Return the records of a topic, in order within a partition."""
        return [record async for record in read_topic(self.kafka, topic)]

    async def values(self, topic: str) -> Sequence[bytes]:
        """Return the values of a topic, in order within a partition."""
        return [record.value or b"" for record in await self.records(topic)]

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def _toml(value: Json) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


async def create(system: System) -> None:
    """Write the configuration, and create the topics as an operator does."""
    system.folder.mkdir(parents=True, exist_ok=True)
    system.write_config()
    env = {**os.environ, **system.env}
    created = await anyio.run_process(system.command("topics", "create"), env=env, check=False)
    assert created.returncode == 0, created.stderr.decode()


@contextlib.asynccontextmanager
async def running_system(system: System) -> AsyncIterator[System]:
    """Create the topics, start every role, wait until all are ready; stop them in the end."""
    await create(system)
    for role in system.roles:
        system.start(role)
    try:
        await system.ready(system.roles)
        yield system
    finally:
        system.stop()
