"""A machine is backed up as docs/operate.md says, lost, and restored elsewhere from the backup."""

import asyncio
import shutil
import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from casewire.config import Config, load_config
from casewire.data_dir import locked
from casewire.demo import address
from casewire.forwarder import forward_all
from casewire.progress import await_caught_up
from casewire.reading import read_topic
from casewire.simulation.delivery import deliver
from casewire.simulation.history import Plan, make_history
from casewire.sink_config import sources
from casewire.sums import count_sums
from casewire.truth import compare
from casewire.up import await_leftovers
from tests.casewire.test_up import Up, environment
from tests.end_to_end.tables import Held, held_cases, sqlite_query

pytestmark = pytest.mark.anyio

SCRIPT = Path(__file__).parents[2] / "docs" / "deploy" / "casewire-backup"
SEED = 20


def machine(folder: Path, config: Path) -> dict[str, str]:
    return environment(folder, CASEWIRE_CONFIG=str(config / "casewire.toml"))


async def caught_up(config: Config) -> None:
    async with asyncio.timeout(120):
        await await_caught_up(config.cluster, sources(config.sinks), lambda group, left: None)


async def states(config: Config) -> dict[bytes | None, bytes | None]:
    return {record.key: record.value async for record in read_topic(config.cluster, "case-state")}


def tables(config: Config) -> Mapping[str, Held]:
    return held_cases(sqlite_query(config.data_dir / "sqlite" / "demo.db"))


async def run_script(folders: Sequence[Path], stop: str) -> tuple[int, list[str]]:
    """Back up; return status and what was said. What starts Casewire again only says so."""
    env = {"PATH": "/usr/bin:/bin", "CASEWIRE_STOP": stop, "CASEWIRE_START": "echo started"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        str(SCRIPT), *map(str, folders), env=env, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode().splitlines()


@pytest.mark.nightly
async def test_a_restored_machine_goes_on_and_what_hq_sends_again_completes_it(
    tmp_path: Path,
) -> None:
    config_folder = tmp_path / "etc"
    config_folder.mkdir()
    (config_folder / "casewire.toml").write_text("[kafka]\npartitions = 2\n")
    env = machine(tmp_path / "first", config_folder)
    first = load_config(config_folder / "casewire.toml", env)
    history = make_history(SEED, datetime.now(UTC), Plan(domain="demo", cases=30, changes=200))
    requests = deliver(history, SEED)
    half = len(requests) // 2

    up = await Up.start(env)
    await forward_all(requests[:half], address(first))
    await caught_up(first)
    stored, held = await states(first), tables(first)
    backup = tmp_path / "backup"
    stop = f"kill -INT {up.process.pid}; tail --pid={up.process.pid} -f /dev/null"
    copied = await run_script([first.data_dir, config_folder, backup], stop)
    assert copied == (0, ["started"])
    assert up.process.returncode == 0
    up = await Up.start(env)
    await forward_all(requests[half:], address(first))
    await up.end(signal.SIGKILL)
    await await_leftovers(first)
    shutil.rmtree(tmp_path / "first")

    shutil.copytree(backup / "data", tmp_path / "second" / "var")
    env = machine(tmp_path / "second", backup / "config")
    second = load_config(backup / "config" / "casewire.toml", env)
    up = await Up.start(env)
    try:
        await caught_up(second)
        assert await states(second) == stored
        assert tables(second) == held
        assert (await count_sums(second.cluster, sources(second.sinks))).match
        # HQ's Data Forwarding Records know days, so some comes that is there already.
        report = await forward_all(requests[half - 50 :], address(second))
        assert not report.failed
        await caught_up(second)
        latest = [value for value in (await states(second)).values() if value is not None]
        assert compare(history.truth, latest) == []
        assert (await count_sums(second.cluster, sources(second.sinks))).match
    finally:
        await up.end(signal.SIGINT)


async def test_nothing_is_copied_while_it_runs_and_it_is_started_again(tmp_path: Path) -> None:
    data, config, target = (tmp_path / name for name in ("data", "etc", "backup"))
    data.mkdir()
    config.mkdir()
    with locked(data):
        found = await run_script([data, config, target], "true")
    assert found == (
        1,
        [f"casewire-backup: Casewire still runs on {data}; stop it", "started"],
    )
    assert not target.exists()
