"""The same faults with tables on disk and standbys, and a disk that is full."""

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.rig import FAULTS, Rig, load, run, running_rig, sending, settle
from tests.chaos.seeds import SEED
from tests.servers import running_kafka

pytestmark = [pytest.mark.anyio, pytest.mark.kafka, pytest.mark.nightly]

ON_DISK = {"CASEWIRE_STREAMS__TABLES": "rocksdb", "CASEWIRE_STREAMS__STANDBY_REPLICAS": "1"}
#: What a file may hold while the disk is "full": less than a table writes under load.
FULL_BYTES = 64 * 1024


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    with running_kafka(tmp_path / "kafka") as broker:
        async with running_rig(tmp_path / "system", [broker], env=ON_DISK) as rig:
            yield rig


async def test_every_fault_twice(rig: Rig) -> None:
    await run(rig, SEED, [*FAULTS, *FAULTS], changes=1500)


async def test_every_fault_with_standbys_of_tables_in_memory(tmp_path: Path) -> None:
    env = {"CASEWIRE_STREAMS__STANDBY_REPLICAS": "1"}
    with running_kafka(tmp_path / "kafka") as broker:
        async with running_rig(tmp_path / "system", [broker], env=env) as rig:
            await run(rig, SEED, FAULTS, changes=1000)


async def test_workers_killed_twenty_times(rig: Rig) -> None:
    await run(rig, SEED, [Rig.kill_worker] * 20, changes=1500)


async def test_a_full_disk_ends_the_worker_and_with_room_nothing_is_missing(rig: Rig) -> None:
    """Each worker in turn; who is started anew has room."""
    sent = load(SEED, 1500)
    work = sending(rig, sent)
    try:
        for role in ("streams", "streams#2"):
            process = rig.system.processes[role]
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FULL_BYTES, FULL_BYTES))
            await asyncio.to_thread(process.wait, 60)
            assert process.returncode == 1
        await settle(rig, sent, [work])
    finally:
        work.cancel()
    assert "make room, or mend the disk" in rig.system.log("streams").read_text()
