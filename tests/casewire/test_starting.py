"""Roles whose broker is not there, yet or any more: they wait for it, and can be stopped."""

import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
import pytest

from casewire.health import running
from schemas.settings import KafkaSettings
from tests.chaos.test_records import capture
from tests.end_to_end.system import System, create
from tests.servers import free_port, running_kafka
from tests.streams.made import captured
from tests.streams.test_worker import case_body

pytestmark = pytest.mark.anyio

#: Those that have nothing to do before they have read from the broker.
ROLES = ("streams", "sink files", "alerts run")
SECONDS = 60
EVENTS = 1000


def system_at(server: str, folder: Path, prefix: str) -> System:
    settings = KafkaSettings(bootstrap_servers=server, topic_prefix=prefix, partitions=1)
    return System(folder, settings, {"files": {"type": "files", "url": str(folder / "files")}})


@pytest.fixture
async def system(tmp_path: Path, prefix: str) -> AsyncIterator[System]:
    """A system whose broker is not there."""
    system = system_at(f"127.0.0.1:{free_port()}", tmp_path, prefix)
    system.write_config()
    yield system
    for role in list(system.processes):
        system.kill(role)


async def health(system: System, role: str, what: str) -> tuple[int, str]:
    """Return what a role says of its health, once it tells any."""
    process = system.processes[role]
    with anyio.fail_after(SECONDS):
        async with aiohttp.ClientSession() as client:
            while True:
                assert process.poll() is None, system.log(role).read_text()[-3000:]
                for one in running(system.folder / "data" / "run"):
                    if one.pid == process.pid:
                        async with client.get(f"http://{one.address}/health/{what}") as answer:
                            return answer.status, (await answer.text()).strip()
                await anyio.sleep(0.1)


async def all_ready(system: System) -> None:
    for role in ROLES:
        with anyio.fail_after(SECONDS):
            while (await health(system, role, "ready"))[0] != 200:  # noqa: ASYNC110 - a process
                await anyio.sleep(0.1)


async def stopped(system: System, roles: Sequence[str]) -> Sequence[int]:
    """Return with which status each role ends when it is told to."""
    processes = [system.processes.pop(role) for role in roles]
    for process in processes:
        process.send_signal(signal.SIGTERM)
    with anyio.fail_after(30):
        return [await anyio.to_thread.run_sync(process.wait) for process in processes]


async def test_without_a_broker_a_role_waits_until_it_is_told_to_stop(system: System) -> None:
    for role in ROLES:
        system.start(role)
    for role in ROLES:
        assert await health(system, role, "live") == (200, "ok")
        assert await health(system, role, "ready") == (
            503, "no broker answers yet; it is tried again",
        )  # fmt: skip
    assert await stopped(system, ROLES) == [0, 0, 0]
    for role in ROLES:
        said = system.log(role).read_text()
        assert "no broker answers yet; it is tried again" in said
        assert "Traceback" not in said


@pytest.mark.nightly
@pytest.mark.kafka
async def test_a_broker_that_comes_late_and_goes_early_costs_nothing(
    tmp_path: Path, prefix: str
) -> None:
    """Its roles were there before it, and are stopped while it is away and events are under way."""
    with running_kafka(tmp_path / "kafka") as broker:
        system = system_at(broker.bootstrap_servers, tmp_path / "system", prefix)
        await create(system)
        broker.kill()
        for role in ROLES:
            system.start(role)
            assert (await health(system, role, "ready"))[0] == 503
        broker.start()
        await all_ready(system)
        await capture(system.kafka, [captured(case_body(f"c{n}", 60, "a")) for n in range(EVENTS)])
        broker.kill()
        assert await stopped(system, ROLES) == [0, 0, 0]
        broker.start()
        for role in ROLES:
            system.start(role)
        await system.caught_up()
        sums = await system.sums()
        assert sums.match
        assert await stopped(system, ROLES) == [0, 0, 0]
