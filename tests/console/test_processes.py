"""What the overview says of processes, by their health on this machine or where they are named."""

from pathlib import Path

import pytest

from casewire.config import load_config
from casewire.console.processes import Process, Processes, ask_processes
from casewire.health import Health, serving_health
from tests.servers import free_port

pytestmark = pytest.mark.anyio

WHY = "its tables are not recovered"


async def test_each_process_of_a_single_machine_is_told_and_those_that_do_not_run(
    tmp_path: Path,
) -> None:
    config = load_config(None, {"CASEWIRE_DATA_DIR": str(tmp_path)})
    bind = f"127.0.0.1:{free_port()}"
    async with serving_health(
        Health(lambda: None, lambda: WHY), role="streams", bind=bind, run_dir=config.run_dir
    ):
        assert await ask_processes(config) == [
            Process("console", "does not run"),
            Process("ingress", "does not run"),
            Process("sink-sqlite", "does not run"),
            Process("streams", f"not ready: {WHY}"),
        ]


async def test_processes_elsewhere_are_asked_where_they_are_named(tmp_path: Path) -> None:
    bind, nobody = (f"127.0.0.1:{free_port()}" for _ in range(2))
    env = {"CASEWIRE_DATA_DIR": str(tmp_path), "CASEWIRE_PROCESSES": f"{bind},{nobody}"}
    config = load_config(None, env)
    health = Health(lambda: None, lambda: None)
    async with serving_health(health, role="ingress", bind=bind, run_dir=tmp_path / "elsewhere"):
        ready, missing = await ask_processes(config)
    assert ready == Process("ingress", "")
    assert f"no role answers at {nobody}" in missing.problem


async def test_those_who_look_at_once_get_what_was_asked_once(tmp_path: Path) -> None:
    config = load_config(None, {"CASEWIRE_DATA_DIR": str(tmp_path)})
    looking = Processes(config)
    first = await looking.look()
    assert first is await looking.look()
    assert Process("streams", "does not run") in first
