"""A running ingress with a client, for tests: real HTTP, a real broker."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
import orjson
from prometheus_client import CollectorRegistry

from ingress.access import Access
from ingress.app import create_app
from ingress.auth import Credential, policy
from ingress.publisher import KafkaPublisher
from ingress.server import serve
from ingress.settings import IngressSettings
from ingress.tokens import Keys
from schemas.settings import KafkaSettings
from tests.kafka_tools import ConsumerRecord, read_all
from tests.servers import free_port

WAIT_SECONDS = 30.0


async def until(holds: Callable[[], bool]) -> None:
    """Return as soon as the condition holds; fail if it does not within WAIT_SECONDS."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():  # noqa: ASYNC110 - what is awaited sets no event
            await asyncio.sleep(0.01)


async def until_listening(port: int) -> None:
    """Return as soon as the port takes connections."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def event_id(self) -> str:
        receipt: dict[str, str] = orjson.loads(self.text)
        assert receipt["stored"] == "kafka"
        return receipt["id"]


@dataclass(slots=True)
class Rig:
    bootstrap: str
    prefix: str
    settings: IngressSettings
    registry: CollectorRegistry
    port: int = field(default_factory=free_port)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    publisher: KafkaPublisher = field(init=False)
    access: Access = field(init=False)
    client: aiohttp.ClientSession = field(init=False)

    def __post_init__(self) -> None:
        kafka = KafkaSettings(bootstrap_servers=self.bootstrap, topic_prefix=self.prefix)
        self.publisher = KafkaPublisher(kafka, self.settings)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    ) -> Reply:
        url = f"http://127.0.0.1:{self.port}{path}"
        data = io.BytesIO(body)
        sent = self.client.request(method, url, data=data, headers=headers, allow_redirects=False)
        async with sent as response:
            return Reply(response.status, await response.text(), response.headers)

    async def post(self, body: bytes, path: str = "/api/v1/in/demo") -> Reply:
        return await self.request("POST", path, body)

    async def raw(self, data: bytes) -> bytes:
        """Send bytes over a connection of their own; return all that comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
        writer.close()
        return answer

    async def captured(self) -> dict[str, ConsumerRecord]:
        """Return all captured records by event id; an id occurs once unless it was answered 503."""
        records = await read_all(self.bootstrap, self.prefix + "captured")
        return {(record.key or b"").decode(): record for record in records}


@contextlib.asynccontextmanager
async def running(
    rig: Rig,
    domains: Collection[str],
    credentials: Collection[Credential],
    *,
    connected: bool = True,
) -> AsyncIterator[Rig]:
    """Serve until the end of the block; at its beginning Kafka has been reached if `connected`."""
    accept_unknown = rig.settings.unknown_domains != "refuse"
    rules = policy(domains, credentials, Keys.of(b"a key"), accept_unknown=accept_unknown)
    rig.access = Access(rules, rig.registry)
    app = create_app(rig.settings, rig.access, rig.publisher, rig.registry)
    serving = asyncio.create_task(
        serve(app, rig.address, rig.settings, metrics=app.metrics, stop=rig.stop)
    )
    serving.add_done_callback(lambda _: rig.stopped.set())
    try:
        await until(lambda: not connected or rig.publisher.ready() is None)
        await until_listening(rig.port)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as rig.client:
            yield rig
    finally:
        rig.stop.set()
        await serving
