"""Targets that are slow, not down: an answer and a lock that come when an event is set."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from aiohttp import web

from casewire.alerts.stalls import Progress
from casewire.alerts.watch import PATIENCE_SECONDS, Watch, workers
from casewire.circuits import waiting_sinks
from casewire.config import load_config
from casewire.settled import count_settled
from schemas.settings import KafkaSettings
from schemas.times import from_microseconds, now, to_microseconds
from tests.chaos.held import check_http, left, settled, unlike
from tests.chaos.seeds import SEED
from tests.chaos.targets import DOMAIN, Load, send
from tests.contract.rigs import PostgresRig, SqliteRig
from tests.end_to_end.system import System, create
from tests.servers import KafkaServer, LocalPostgres, running_postgres
from tests.sinks.http_target import Received, Target, ok
from tests.streams.made import Made

pytestmark = [pytest.mark.anyio, pytest.mark.kafka, pytest.mark.nightly]

SLOW = ("http", "postgres")


@dataclass
class Slow:
    """`open`: whether the target answers."""

    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, received: Received) -> web.StreamResponse:
        await self.open.wait()
        return await ok(received)


@pytest.fixture
async def slow() -> AsyncIterator[tuple[Slow, Target]]:
    slow = Slow()
    target = Target(slow.answer)
    await target.start()
    yield slow, target
    await target.kill()


@pytest.fixture
async def system(
    kafka: KafkaServer, prefix: str, tmp_path: Path, slow: tuple[Slow, Target]
) -> AsyncIterator[tuple[System, LocalPostgres]]:
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=2
    )
    with running_postgres() as postgres:
        sinks = {
            "sqlite": {"type": "sql"},
            "postgres": {"type": "sql", "url": postgres.url()},
            "http": {"type": "http", "url": slow[1].url},
        }
        system = System(tmp_path / "system", settings, sinks)
        await create(system)
        for role in system.sink_roles:
            system.start(role)
        yield system, postgres
        system.stop()


async def send_states(system: System, load: Load, count: int) -> None:
    made: Sequence[Made] = [each for _ in range(count) for each in load.records(now())]
    await send(system.kafka, [each for each in made if b"bad-" not in (each.key or b"")])


async def stalled(system: System) -> set[str]:
    """Return who is told of if all stays as it is for as long as the alerts are patient."""
    sinks = load_config(system.config_file, {}).sinks
    watched = [Progress(each) for each in workers(system.kafka, sinks) if each.name != "streams"]
    watch = Watch(system.kafka, watched)
    began = now()
    later = from_microseconds(to_microseconds(began) + int(PATIENCE_SECONDS + 1) * 1_000_000)
    for time in (began, later, later):
        await watch._read(time)
    return {each.worker.name for each in watched if each.report(later) is not None}


async def test_slow_targets_hold_up_nobody_else_and_get_everything_once(
    system: tuple[System, LocalPostgres], slow: tuple[Slow, Target]
) -> None:
    (roles, postgres), (http, target) = system, slow
    load = Load(random.Random(SEED))  # noqa: S311 - it must be repeatable, not secret
    http.open.set()
    await send_states(roles, load, 100)
    await settled(roles, *roles.sinks)
    http.open.clear()
    with psycopg.connect(postgres.url()) as other:
        other.execute(f"LOCK TABLE {DOMAIN}.cases, {DOMAIN}.forms".encode())
        await send_states(roles, load, 300)
        await settled(roles, "sqlite")
        assert [await left(roles, name) > 0 for name in (*SLOW, "sqlite")] == [True, True, False]
        assert not await waiting_sinks(roles.folder / "data" / "run")
        assert await stalled(roles) == {f"sink-{name}" for name in SLOW}
        other.rollback()
    http.open.set()
    await settled(roles, *SLOW)
    assert await stalled(roles) == set()

    newest = {key: state for key, state in load.newest.items() if "/bad-" not in key}
    for tables in (SqliteRig(roles.folder / "data" / "sqlite"), PostgresRig(postgres.url())):
        assert not await unlike(tables, newest)
    check_http(target, newest)
    assert set(Counter(target.taken).values()) == {1}
    for each in await count_settled(roles.kafka, roles.sources):
        assert (each.unsettled, sum(each.ends.values())) == ([], each.passed), each.source
