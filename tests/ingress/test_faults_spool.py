"""The ingress as a process of its own, with a spool, while everything behind and it itself dies."""

import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from schemas.topics import MEBIBYTE
from tests.ingress.faults import Broker, Ingress, Load, prove
from tests.servers import LocalKafka, running_kafka

pytestmark = pytest.mark.anyio

MEMORY_BYTES = 300 * MEBIBYTE


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker that the tests of this file kill and freeze."""
    with running_kafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture
async def broker(server: LocalKafka, prefix: str) -> AsyncIterator[Broker]:
    """That broker, alive, with topics for this test; alive again afterwards."""
    broker = Broker(server, prefix)
    await broker.create()
    yield broker
    if server.process is None:
        await broker.start()
    broker.thaw()


Start: TypeAlias = Callable[..., Awaitable[tuple[Ingress, Load]]]


@pytest.fixture
async def start(broker: Broker, tmp_path: Path) -> AsyncIterator[Start]:
    """Start an ingress with these settings, on the folder that all of a test share.

    Gives it and a load on it. All are killed afterwards.
    """
    processes: list[Ingress] = []

    async def start(**settings: object) -> tuple[Ingress, Load]:
        ingress = Ingress(broker, tmp_path / "data", **settings)
        processes.append(ingress)
        await ingress.start()
        return ingress, Load(ingress.port)

    yield start
    broker.thaw() if broker.server.process else None
    for process in processes:
        await process.kill()


async def test_a_broker_killed_under_load(broker: Broker, start: Start) -> None:
    ingress, load = await start(kafka_timeout_seconds=1)
    async with load.running(8):
        await load.until_answered(300)
        broker.kill()
        await load.until_answered(2000)
        await broker.start()
        await ingress.until("casewire_spool_drained_total", 1)
        await load.until_answered(300)
    assert set(load.statuses) == {200}
    assert load.places.keys() == {"kafka", "spool"}
    await prove(load, broker, ingress)
    await ingress.stop()


async def test_a_frozen_broker_and_a_graceful_stop_meanwhile(broker: Broker, start: Start) -> None:
    ingress, load = await start()
    async with load.running(8):
        await load.until_answered(300)
        broker.freeze()
        answered = load.statuses[200]
        await ingress.stop()
        assert ingress.segments()
        # Each that waited for Kafka heard that it is in the spool.
        assert load.places["spool"] >= 8
        assert load.statuses[200] > answered
        broker.thaw()
        await ingress.start()
        await load.until_answered(300)
    assert set(load.statuses) <= {200, 503}
    await prove(load, broker, ingress)


async def test_an_ingress_killed_in_every_state_of_its_spool(broker: Broker, start: Start) -> None:
    ingress, load = await start(spool_bytes=6 * MEBIBYTE)
    broker.kill()

    async def restart() -> None:
        await ingress.kill()
        await ingress.start()

    async with load.running(8):
        await restart()
        await load.until_answered(500)
        await restart()  # while it fills
        await load.until_answered(100, status=503)
        assert "nearly full" in await ingress.ready()
        await restart()  # when it is full
        await load.until_answered(100, status=503)
        await broker.start()
        await ingress.until("casewire_spool_drained_total", 1)
        await restart()  # while it drains
        await ingress.until_ready()
        await ingress.until("casewire_spool_bytes", 0, 0)
        await load.until_answered(300)
        await restart()  # when it is empty
        await load.until_answered(300)
    assert load.places.keys() == {"kafka", "spool"}
    await prove(load, broker, ingress)


async def test_a_full_disk_under_the_spool(broker: Broker, start: Start) -> None:
    ingress, load = await start(kafka_timeout_seconds=1)
    broker.kill()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with load.running(8):
        await ingress.until("casewire_spool_stored_total", 500)
        written = max(path.stat().st_size for path in ingress.segments())
        resource.prlimit(ingress.process.pid, resource.RLIMIT_FSIZE, (written // 2, hard))
        await ingress.until("casewire_spool_failures_total", 3)
        await load.until_answered(100, status=503)
        resource.prlimit(ingress.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        await load.until_answered(500)
        await broker.start()
        await ingress.until("casewire_spool_drained_total", 1)
    await prove(load, broker, ingress)


@pytest.mark.parametrize(
    ("spool", "requests"),
    [
        ("off", 60_000),
        ("on", 15_000),
        pytest.param("on", 60_000, marks=pytest.mark.nightly),
    ],
)
async def test_an_outage_of_many_requests_stays_below_the_memory_limit(
    broker: Broker, start: Start, spool: str, requests: int
) -> None:
    ingress, load = await start(spool=spool, kafka_timeout_seconds=1)
    await load.send(100, 10)
    broker.freeze()
    await load.send(requests, 500)
    assert ingress.peak_bytes() < MEMORY_BYTES
    assert load.statuses.get(200 if spool == "on" else 503, 0) >= requests - 1000
    broker.thaw()
    await prove(load, broker, ingress)
    assert ingress.peak_bytes() < MEMORY_BYTES


async def test_two_processes_share_the_spool_and_one_drains_what_the_other_left(
    broker: Broker, start: Start
) -> None:
    broker.kill()
    (first, load), (second, other) = await asyncio.gather(start(), start())
    await asyncio.gather(load.send(500, 8), other.send(500, 8))
    await first.kill()
    await broker.start()
    await second.until("casewire_spool_drained_total", 1000)
    load.stored |= other.stored
    assert len(load.stored) == 1000
    assert load.places == other.places == {"spool": 500}
    load.sent += other.sent
    assert not second.segments()


@pytest.mark.nightly
async def test_a_broker_frozen_for_twelve_seconds_with_the_default_settings(
    broker: Broker, start: Start
) -> None:
    ingress, load = await start()
    for _ in range(3):
        async with load.running(64):
            await load.until_answered(300)
            broker.freeze()
            await asyncio.sleep(12)
            broker.thaw()
            await load.until_answered(2000)
    assert set(load.statuses) == {200}
    await prove(load, broker, ingress)


@pytest.mark.nightly
async def test_an_ingress_killed_many_times_while_the_broker_comes_and_goes(
    broker: Broker, start: Start
) -> None:
    ingress, load = await start(kafka_timeout_seconds=1)
    async with load.running(8):
        for round_ in range(8):
            await load.until_answered(500)
            if round_ % 4 == 0:
                broker.kill()
            if round_ % 4 == 2:
                await broker.start()
            await load.until_answered(100)
            await ingress.kill()
            await ingress.start()
    await prove(load, broker, ingress)
