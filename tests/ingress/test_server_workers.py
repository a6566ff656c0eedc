"""`casewire ingress --workers 2`, as an operator runs it."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

import aiohttp
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from casewire.health import running
from tests.ingress.rig import WAIT_SECONDS, until
from tests.kafka_tools import create_topics
from tests.servers import KafkaServer, free_port

pytestmark = pytest.mark.anyio


class Parent:
    """The parent process, and what its workers tell of themselves."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.config = folder / "casewire.toml"
        self._run_dir = folder / "data" / "run"
        self.process: asyncio.subprocess.Process | None = None

    def workers(self) -> set[int]:
        """Return the process ids of the workers that run."""
        return {one.pid for one in running(self._run_dir)}

    def targets(self) -> Mapping[int, str]:
        """Return where Prometheus is to ask each worker."""
        return {
            int(file.stem.removeprefix("ingress-")): orjson.loads(file.read_bytes())[0]["targets"][
                0
            ]
            for file in (self._run_dir / "targets").glob("*.json")
        }

    async def stop(self) -> int:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), WAIT_SECONDS)


@pytest.fixture
async def parent(kafka: KafkaServer, prefix: str, tmp_path: Path) -> AsyncIterator[Parent]:
    await create_topics(kafka.bootstrap_servers, prefix, ["captured", "bodies"])
    parent = Parent(tmp_path)
    parent.config.write_text(
        f'data_dir = "{tmp_path}/data"\nmetrics_bind = "127.0.0.1:{free_port()}"\n'
        f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\ntopic_prefix = "{prefix}"\n'
        f'[ingress]\nbind = "127.0.0.1:{parent.port}"\n',
        encoding="utf-8",
    )
    command = ("casewire", "--config", str(parent.config), "ingress", "--workers", "2")
    parent.process = await asyncio.create_subprocess_exec(sys.executable, "-m", *command)
    try:
        await until(lambda: len(parent.workers()) == 2)
        yield parent
    finally:
        await parent.stop()


async def test_workers_serve_are_replaced_and_end_with_their_parent(parent: Parent) -> None:
    url = f"http://127.0.0.1:{parent.port}/api/v1/in/demo"
    first = parent.workers()
    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    await until(lambda: victim not in parent.workers() and len(parent.workers()) == 2)
    async with aiohttp.ClientSession() as client, asyncio.timeout(WAIT_SECONDS):
        status = 0
        while status != 200:
            with contextlib.suppress(aiohttp.ClientError):
                async with client.post(url, data=b"x") as reply:
                    status = reply.status
        await until(lambda: parent.targets().keys() == parent.workers())
        assert await events(client, parent.targets().values()) == 1
    assert await parent.stop() == 0
    assert not parent.workers()
    assert not parent.targets()


async def events(client: aiohttp.ClientSession, targets: Iterable[str]) -> float:
    """Return how many events the workers have stored, as Prometheus would sum it."""
    found = 0.0
    for target in targets:
        async with client.get(f"http://{target}/metrics") as reply:
            families = text_string_to_metric_families(await reply.text())
            (captured,) = (each for each in families if each.name == "casewire_ingress_events")
            found += sum(sample.value for sample in captured.samples)
    return found
