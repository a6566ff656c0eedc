"""The servers that are compared, each a process on this machine, all on one broker."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import requests
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.settings import KafkaSettings
from schemas.topics import MEBIBYTE, TOPICS, topic_config
from tests.hq.certificates import make_certificate
from tests.hq.ingress import Ingress, running_ingress
from tests.servers import LocalKafka, free_port, wait_for_port

_HERE: Final = Path(__file__).parent
_PARTITIONS: Final = 8
_STOP_SECONDS: Final = 20


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; `headers` are what a request to it needs beside HQ's own.

    `authority` is the PEM file of who vouches for its certificate.
    """

    name: str
    url: str
    pids: Sequence[int]
    headers: Mapping[str, str] = field(default_factory=dict)
    authority: Path | None = None


@dataclass(frozen=True, slots=True)
class Lab:
    """Where servers run: a broker, a folder for their files, and what ends them all."""

    broker: LocalKafka
    folder: Path
    stack: ExitStack

    def topics(self, name: str, *, flushed: bool) -> KafkaSettings:
        """Create `captured` and `bodies` with the contract's settings, flushed or not."""
        kafka = KafkaSettings(
            bootstrap_servers=self.broker.bootstrap_servers, topic_prefix=f"{name}."
        )
        asyncio.run(_create(kafka, flushed=flushed))
        return kafka

    def noop(self, processes: int = 1) -> Server:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.ingress.noop", f"127.0.0.1:{port}"]
        pids = [self._started("noop", command, port) for _ in range(processes)]
        return Server("no-op Starlette", _url("http", port), pids)

    def go(self, binary: Path, kafka: KafkaSettings, *, headers: bool = False) -> Server:
        port = free_port()
        command = [
            str(binary),
            f"-bind=127.0.0.1:{port}",
            f"-brokers={kafka.bootstrap_servers}",
            f"-topic={kafka.topic('captured')}",
            f"-headers={str(headers).lower()}",
        ]
        name = "Go, the same headers stored" if headers else "Go"
        return Server(name, _url("http", port), [self._started("go", command, port)])

    def connect(self, kafka: KafkaSettings) -> Server | None:
        """Redpanda Connect, None if it is not installed."""
        binary = shutil.which("redpanda-connect")
        if binary is None:
            return None
        port = free_port()
        config = self.folder / "connect.yaml"
        config.write_text(
            (_HERE / "connect.yaml")
            .read_text(encoding="utf-8")
            .replace("$PORT", str(port))
            .replace("$BROKERS", kafka.bootstrap_servers)
            .replace("$TOPIC", kafka.topic("captured")),
            encoding="utf-8",
        )
        pid = self._started("connect", [binary, "run", str(config)], port)
        return Server("Redpanda Connect", _url("http", port), [pid])

    def casewire(self, variant: "Variant", kafka: KafkaSettings, processes: int = 1) -> Server:
        folder = self.folder / f"{variant.name}-{processes}-{kafka.topic_prefix}"
        folder.mkdir()
        port = free_port()
        certificate = make_certificate(folder) if variant.scheme == "https" else None
        keys = variant.keys + (certificate.ingress_keys if certificate else "")
        pids = []
        for number in range(processes):
            ingress = Ingress(
                folder / str(number),
                kafka,
                tables=variant.tables(folder),
                keys=keys,
                scheme=variant.scheme,
                port=port,
            )
            self.stack.enter_context(running_ingress(ingress))
            pids.append(ingress.pid)
            if variant.scraped:
                self.stack.enter_context(_scraping(ingress.metrics_url))
        url = _url(variant.scheme, port)
        authority = certificate.authority if certificate else None
        return Server(variant.name, url, pids, variant.sent(url), authority)

    def _started(self, name: str, command: Sequence[str], port: int) -> int:
        log = self.folder / f"{name}-{port}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        self.stack.callback(_end, process)
        wait_for_port(port, process, log)
        return process.pid


@dataclass(frozen=True, slots=True)
class Variant:
    """An ingress with something switched on or off: lines of `[ingress]`, and a credential.

    `credential` are lines of its table, with `stored` in its file. `headers` go with each request;
    with `secret` a token is asked for, for the user name `hq`, and sent instead. `scraped`: the
    metrics are read ten times a second.
    """

    name: str
    keys: str = ""
    credential: str = ""
    stored: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    secret: str = ""
    scraped: bool = False
    scheme: str = "http"

    def tables(self, folder: Path) -> str:
        if not self.credential:
            return "[domains.demo]\n"
        file = folder / "secret"
        file.write_text(self.stored, encoding="utf-8")
        file.chmod(0o600)
        return (
            "[domains.demo]\n[credentials.demo]\n"
            f'domains = ["demo"]\nsecret_file = "{file}"\n{self.credential}\n'
        )

    def sent(self, url: str) -> Mapping[str, str]:
        if not self.secret:
            return self.headers
        return {"Authorization": f"Bearer {asyncio.run(_token(url, self.secret))}"}


async def _token(url: str, secret: str) -> str:
    place = url.partition("/in/")[0] + "/token"
    grant = {"grant_type": "password", "username": "hq", "password": secret}
    async with aiohttp.ClientSession() as client, client.post(place, data=grant) as answer:
        answer.raise_for_status()
        token: str = (await answer.json())["access_token"]
        return token


@contextlib.contextmanager
def _scraping(url: str) -> Iterator[None]:
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(0.1):
            requests.get(url, timeout=10).raise_for_status()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _url(scheme: str, port: int) -> str:
    return f"{scheme}://127.0.0.1:{port}/api/v1/in/demo"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
        return
    process.kill()
    process.wait()


async def _create(kafka: KafkaSettings, *, flushed: bool) -> None:
    topics = []
    for name in ("captured", "bodies"):
        config = topic_config(TOPICS[name], replication=1, retention_bytes=256 * MEBIBYTE)
        if not flushed:
            config.pop("flush.messages", None)
        topics.append(NewTopic(kafka.topic(name), _PARTITIONS, 1, topic_configs=config))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics(topics)
    finally:
        await admin.close()


@contextlib.contextmanager
def lab(broker: LocalKafka, folder: Path) -> Iterator[Lab]:
    """Give a place for servers, and end them afterwards."""
    with ExitStack() as stack:
        yield Lab(broker, folder, stack)
