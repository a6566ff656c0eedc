"""Every target and every sink's worker killed at random moments under load: all is there, once.

And while one target is away for long, the others go on as if nothing were.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.case import CaseState
from schemas.settings import KafkaSettings
from tests.chaos.held import check, check_replay, left, settled
from tests.chaos.seeds import RUNS, SEED
from tests.chaos.targets import Bench, running_bench
from tests.servers import LocalKafka, LocalPostgres, S3Server, running_kafka, running_postgres
from tests.streams.made import Made

pytestmark = [pytest.mark.anyio, pytest.mark.kafka, pytest.mark.postgres]


@pytest.fixture
def mortal() -> Iterator[LocalPostgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def partner(tmp_path: Path) -> Iterator[LocalKafka]:
    with running_kafka(tmp_path / "partner") as server:
        yield server


@pytest.fixture
def settings(kafka: LocalKafka, prefix: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=4
    )


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    server = S3Server(tmp_path / "s3")
    server.start()
    try:
        yield server
    finally:
        server.kill()


async def survive(bench: Bench, rounds: int, events: int) -> None:
    await bench.send_old(100)
    for role in (*bench.system.sink_roles, "sink postgres#2"):  # two that share partitions
        bench.system.start(role)
    async with asyncio.TaskGroup() as work:
        work.create_task(bench.send(events))
        work.create_task(bench.strike(rounds))
    await bench.http.kill()
    await bench.send(50)
    others = [name for name in bench.system.sinks if name != "http"]
    await settled(bench.system, *others)
    assert await left(bench.system, "http")
    await bench.http.start()
    await settled(bench.system, "http")
    await check(bench)
    living = [key for key, (state, _) in bench.load.latest.items() if lives(state)]
    await check_replay(bench, living[0])


def lives(record: Made) -> bool:
    state = CaseState.from_json(record.value or b"") if record.topic == "case-state" else None
    return state is not None and not state.deleted and not state.case_id.startswith("bad")


async def test_each_worker_and_each_target_is_killed(
    settings: KafkaSettings, mortal: LocalPostgres, partner: LocalKafka, tmp_path: Path
) -> None:
    servers = mortal, partner, None
    async with running_bench(tmp_path / "system", settings, servers, SEED) as bench:
        await survive(bench, rounds=1, events=700)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
async def test_workers_and_targets_are_killed_again_and_again(
    settings: KafkaSettings,
    mortal: LocalPostgres,
    partner: LocalKafka,
    s3: S3Server,
    tmp_path: Path,
    seed: int,
) -> None:
    servers = mortal, partner, s3
    async with running_bench(tmp_path / "system", settings, servers, seed) as bench:
        await survive(bench, rounds=5, events=10_000)
