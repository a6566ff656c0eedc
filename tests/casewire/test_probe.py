"""The container's health check asks what runs in a data directory."""

import asyncio
import sys
from pathlib import Path

import pytest

from casewire.health import Health, serving_health
from tests.servers import free_port

pytestmark = pytest.mark.anyio


async def probed(run_dir: Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "casewire.probe", str(run_dir), stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [(None, (0, "")), ("the broker is away", (1, "streams: the broker is away\n"))],
)
async def test_a_container_is_healthy_if_its_process_is_ready(
    tmp_path: Path, reason: str | None, wanted: tuple[int, str]
) -> None:
    health = Health(live=lambda: None, ready=lambda: reason)
    bind = f"127.0.0.1:{free_port()}"
    async with serving_health(health, role="streams", bind=bind, run_dir=tmp_path):
        assert await probed(tmp_path) == wanted


async def test_a_container_in_which_nothing_runs_is_not_healthy(tmp_path: Path) -> None:
    gone = '{"role": "streams", "pid": 4194999, "address": "127.0.0.1:1", "started": "1"}'
    (tmp_path / "streams-4194999.json").write_text(gone)
    assert await probed(tmp_path) == (1, "nothing runs here, or it does not tell its health yet\n")


async def test_a_process_that_does_not_answer_is_not_healthy(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "streams-1.json").write_text(
        f'{{"role": "streams", "pid": 1, "address": "{address}"}}'
    )
    code, said = await probed(tmp_path)
    assert (code, said.startswith(f"streams: {address} does not answer")) == (1, True)
