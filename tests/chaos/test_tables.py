"""Tables on disk, standbys that follow them, and a disk that is full: all faults over again."""

import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio
import pytest

from tests.chaos.rig import FAULTS, Rig, run, running_rig
from tests.chaos.seeds import SEED
from tests.servers import running_kafka

pytestmark = [pytest.mark.anyio, pytest.mark.kafka, pytest.mark.nightly]

TABLES: Final[Mapping[str, Mapping[str, str]]] = {
    "standbys": {"CASEWIRE_STREAMS__STANDBY_REPLICAS": "1"},
    "rocksdb": {"CASEWIRE_STREAMS__TABLES": "rocksdb"},
    "rocksdb and standbys": {
        "CASEWIRE_STREAMS__TABLES": "rocksdb",
        "CASEWIRE_STREAMS__STANDBY_REPLICAS": "1",
    },
}
#: No file of a worker may grow beyond this: the log of RocksDB reaches it within seconds.
FULL_BYTES: Final = 64 * 1024
FULL_SECONDS: Final = 15


@pytest.mark.parametrize("tables", TABLES)
async def test_every_fault_with_other_tables(tmp_path: Path, tables: str) -> None:
    with running_kafka(tmp_path / "kafka") as broker:
        async with running_rig(tmp_path / "system", [broker], env=TABLES[tables]) as rig:
            await run(rig, SEED, FAULTS, changes=1000)


async def fill_disk(rig: Rig) -> None:
    """Let no file of a worker grow until it ends; whoever starts it anew has made room."""
    process = rig.system.processes[rig.some_worker()]
    with anyio.move_on_after(FULL_SECONDS):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FULL_BYTES, resource.RLIM_INFINITY))
        await anyio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
    if process.poll() is None:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)


async def test_a_full_disk_under_the_tables(tmp_path: Path) -> None:
    with running_kafka(tmp_path / "kafka") as broker:
        env = TABLES["rocksdb and standbys"]
        async with running_rig(tmp_path / "system", [broker], env=env) as rig:
            await run(rig, SEED, [fill_disk] * 4, changes=3000)
            logs = [rig.system.log(role).read_text() for role in ("streams", "streams#2")]
            assert any("casewire: the tables in" in log for log in logs)
