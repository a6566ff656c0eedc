"""A real `casewire ingress`, load on it, and the proof that nothing answered 200 is missing."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import orjson

from tests.ingress.rig import WAIT_SECONDS, until
from tests.kafka_tools import ConsumerRecord, create_topics, read_all
from tests.servers import LocalKafka, free_port

HEADERS: Final = [
    ("content-type", b"text/xml"),
    ("received-on", b"2026-11-22T10:00:00.000000Z"),
    ("x-twice", b"1"),
    ("x-twice", b"\xe4"),
]
_HEAD: Final = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in HEADERS)


async def wait_until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return as soon as the condition holds; fail if it does not within WAIT_SECONDS."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not await holds():  # noqa: ASYNC110 - another process sets no event
            await asyncio.sleep(0.02)


class Broker:
    """A broker of one's own, and topics of one's own on it."""

    def __init__(self, server: LocalKafka, prefix: str) -> None:
        self.server = server
        self.prefix = prefix

    async def create(self) -> None:
        await create_topics(self.server.bootstrap_servers, self.prefix, ["captured", "bodies"])

    def kill(self) -> None:
        self.server.kill()

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    async def captured(self) -> list[ConsumerRecord]:
        return await read_all(self.server.bootstrap_servers, f"{self.prefix}captured")

    def _signal(self, number: int) -> None:
        assert self.server.process is not None
        self.server.process.send_signal(number)


class Ingress:
    """A process that can be killed and started again on the same data."""

    def __init__(self, broker: Broker, data_dir: Path, **settings: object) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.health = free_port()
        self._env = {
            **{name: value for name, value in os.environ.items() if "CASEWIRE" not in name},
            "KAFKA_BOOTSTRAP_SERVERS": broker.server.bootstrap_servers,
            "CASEWIRE_KAFKA__TOPIC_PREFIX": broker.prefix,
            "CASEWIRE_DATA_DIR": str(data_dir),
            "CASEWIRE_INGRESS_BIND": f"127.0.0.1:{self.port}",
            "CASEWIRE_METRICS_BIND": f"127.0.0.1:{self.health}",
        }
        for name, value in settings.items():
            self._env[f"CASEWIRE_INGRESS__{name.upper()}"] = str(value)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Return when it listens."""
        self.data_dir.mkdir(exist_ok=True)
        command = (sys.executable, "-m", "casewire", "ingress")
        with (self.data_dir / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, env=self._env, cwd=self.data_dir, stdout=log, stderr=log
            )
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                assert self._process.returncode is None, (self.data_dir / "log").read_text()
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """End it at once (kill -9)."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """End it by SIGTERM, which takes at most ten seconds."""
        self.process.terminate()
        assert await asyncio.wait_for(self.process.wait(), 10) == 0

    async def ready(self) -> str:
        """Return `200` or the reason why it is not ready."""
        status, text = await self._get("/health/ready")
        return "200" if status == 200 else text

    async def metric(self, name: str) -> float:
        _, text = await self._get("/metrics")
        lines = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(lines[0].split()[1]) if lines else 0.0

    async def until(self, name: str, least: float, most: float = float("inf")) -> None:
        """Return when a metric lies between two values."""

        async def holds() -> bool:
            return least <= await self.metric(name) <= most

        await wait_until(holds)

    async def until_ready(self) -> None:

        async def holds() -> bool:
            return await self.ready() == "200"

        await wait_until(holds)

    def peak_bytes(self) -> int:
        """Return the most memory that it has had so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def segments(self) -> list[Path]:
        return list(self.data_dir.glob("spool/*/*.segment"))

    async def _get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.health}{path}"
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            return answer.status, await answer.text()


@dataclass(slots=True)
class Load:
    """Requests with numbered bodies over many connections, and what was answered.

    Each connection pauses for `pause` seconds between two, which bounds what has to be proved.
    `stored` maps event ids to bodies. `places` and `statuses` count the answers, `broken` the
    requests without one.
    """

    port: int
    size: int = 1100
    pause: float = 0.004
    sent: int = 0
    broken: int = 0
    stored: dict[str, bytes] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    limit: int = sys.maxsize
    stopped: bool = False

    @contextlib.asynccontextmanager
    async def running(self, connections: int = 32) -> AsyncIterator["Load"]:
        """Send until the end of the block."""
        self.stopped = False
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(self._connection())
            try:
                yield self
            finally:
                self.stopped = True

    async def send(self, count: int, connections: int) -> None:
        """Send that many."""
        self.limit = self.sent + count
        self.pause = 0
        async with self.running(connections):
            await until(lambda: self.sent >= self.limit)

    async def until_answered(self, more: int, status: int = 200) -> None:
        """Return after that many more answers of a status."""
        wanted = self.statuses.get(status, 0) + more
        await until(lambda: self.statuses.get(status, 0) >= wanted)

    async def _connection(self) -> None:
        while not self.stopped and self.sent < self.limit:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            try:
                await self._requests(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                self.broken += 1
            finally:
                writer.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self.stopped and self.sent < self.limit:
            self.sent += 1
            body = b"%d;" % self.sent
            body += b"x" * (self.size - len(body))
            length = b"content-length: %d\r\n\r\n" % len(body)
            writer.write(b"POST /api/v1/in/demo HTTP/1.1\r\nhost: x\r\n" + _HEAD + length + body)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head[9:12])
            text = await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status == 200:
                receipt: Mapping[str, str] = orjson.loads(text)
                assert receipt["id"] not in self.stored
                self.stored[receipt["id"]] = body
                self.places[receipt["stored"]] = self.places.get(receipt["stored"], 0) + 1
            else:
                assert status == 503, (status, text)
            if b"connection: close" in head:
                return
            if self.pause:
                await asyncio.sleep(self.pause)


async def prove(load: Load, broker: Broker, ingress: Ingress) -> None:
    """Every 200 is in Kafka as it was sent; twice only under one id; the spool is empty.

    What is there beyond that was sent too, without hearing 200.
    """
    await ingress.until_ready()
    await ingress.until("casewire_spool_events", 0, 0)
    await until(lambda: not ingress.segments())
    contents: dict[str, tuple[bytes, list[tuple[str, bytes]]]] = {}
    for record in await broker.captured():
        event_id = (record.key or b"").decode()
        content = (record.value or b"", list(record.headers))
        assert contents.setdefault(event_id, content) == content
    for event_id, body in load.stored.items():
        assert event_id in contents
        value, headers = contents[event_id]
        assert value == body
        assert [item for item in headers if item in HEADERS] == HEADERS
        assert ("ce_id", event_id.encode()) in headers
    unanswered = contents.keys() - load.stored.keys()
    assert len(unanswered) <= load.sent - len(load.stored)
    bodies = {contents[event_id][0] for event_id in unanswered}
    assert len(bodies) == len(unanswered)
    assert not bodies & set(load.stored.values())
    assert await ingress.metric("casewire_spool_damaged_total") == 0
