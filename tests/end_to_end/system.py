"""Casewire's roles as processes of their own, as a user runs them, on the tests' servers."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import anyio

from casewire.health import running
from casewire.progress import await_caught_up
from casewire.sums import Sums, count_sums, read_topic
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS
from tests.kafka_tools import create_topics
from tests.servers import free_port

START_SECONDS = 90
CATCH_UP_SECONDS = 120


@dataclass
class System:
    """Roles on one data directory. `sinks` maps a sink's name to its keys in the configuration."""

    folder: Path
    kafka: KafkaSettings
    sinks: Mapping[str, Mapping[str, str]]
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def address(self, domain: str) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1/in/{domain}"

    @property
    def roles(self) -> Sequence[str]:
        return ("ingress", "streams", *(f"sink {name}" for name in self.sinks))

    @property
    def config_file(self) -> Path:
        return self.folder / "casewire.toml"

    def write_config(self) -> None:
        lines = [
            f'data_dir = "{self.folder}/data"',
            f'metrics_bind = "127.0.0.1:{free_port()}"',
            "[kafka]",
            f'bootstrap_servers = "{self.kafka.bootstrap_servers}"',
            f'topic_prefix = "{self.kafka.topic_prefix}"',
            f"partitions = {self.kafka.partitions}",
            "[ingress]",
            f'bind = "127.0.0.1:{self.port}"',
            "[streams]",
            "session_timeout_seconds = 6",
        ]
        for name, keys in self.sinks.items():
            lines.append(f"[sinks.{name}]")
            lines.extend(f'{key} = "{value}"' for key, value in keys.items())
        self.config_file.write_text("\n".join(lines))

    def start(self, role: str) -> None:
        """Start a role; several processes of one are told apart by what follows a `#`."""
        command = [sys.executable, "-m", "casewire", "--config", str(self.config_file)]
        log_name = role.replace(" ", "-") + ".log"
        with (self.folder / log_name).open("ab") as log:
            self.processes[role] = subprocess.Popen(
                [*command, *role.partition("#")[0].split()], stdout=log, stderr=log
            )

    def kill(self, role: str) -> None:
        process = self.processes.pop(role)
        process.kill()
        process.wait()

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
        log = self.folder / (role.replace(" ", "-") + ".log")
        ended = self.processes[role].poll() is not None and not supervised
        assert not ended, f"{role} ended:\n{log.read_text()[-3000:]}"

    async def _is_ready(self, client: aiohttp.ClientSession, role: str) -> bool:
        process = self.processes[role]
        for one in running(self.folder / "data" / "run"):
            if one.pid == process.pid:
                with contextlib.suppress(aiohttp.ClientError):
                    async with client.get(f"http://{one.address}/health/ready") as answer:
                        return answer.status == 200
        return False

    async def caught_up(self) -> None:
        """Return when all that was captured has gone through streams and into every sink."""
        with anyio.fail_after(CATCH_UP_SECONDS):
            await await_caught_up(self.kafka, self.sinks, lambda _group, _left: None)

    async def sums(self) -> Sums:
        return await count_sums(self.kafka)

    async def values(self, topic: str) -> Sequence[bytes]:
        """Return the values of a topic, in order within a partition."""
        return [record.value or b"" async for record in read_topic(self.kafka, topic)]

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


@contextlib.asynccontextmanager
async def running_system(system: System) -> AsyncIterator[System]:
    """Create the topics, start every role, wait until all are ready; stop them in the end."""
    system.folder.mkdir(parents=True, exist_ok=True)
    system.write_config()
    await create_topics(
        system.kafka.bootstrap_servers,
        system.kafka.topic_prefix,
        TOPICS,
        system.kafka.partitions,
    )
    for role in system.roles:
        system.start(role)
    try:
        await system.ready(system.roles)
        yield system
    finally:
        system.stop()
