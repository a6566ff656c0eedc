import os
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from casewire.addresses import Address
from casewire.health import Health, Running, announce, running, serving_health, start_time
from casewire.supervisor import ask_ready, health_probe, port_probe
from schemas.errors import UnavailableError
from tests.servers import free_port

pytestmark = pytest.mark.anyio

FINE = Health(live=lambda: None, ready=lambda: None)


async def get(address: Address, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}{path}") as answer:
        return answer.status, await answer.text()


async def test_probes_answer_and_give_their_reason(tmp_path: Path) -> None:
    reasons: dict[str, str | None] = {"live": None, "ready": "no partitions"}
    health = Health(lambda: reasons["live"], lambda: reasons["ready"])
    bind = f"127.0.0.1:{free_port()}"
    async with serving_health(health, role="streams", bind=bind, run_dir=tmp_path) as address:
        assert await get(address, "/health/live") == (200, "ok\n")
        assert await get(address, "/health/ready") == (503, "no partitions\n")
        assert await health_probe(tmp_path)(os.getpid()) == "no partitions"
        reasons["ready"] = None
        assert await ask_ready(str(address)) is None
        status, metrics = await get(address, "/metrics")
        assert status == 200
        assert "# HELP" in metrics
    assert "does not answer" in str(await ask_ready(str(address)))
    assert await health_probe(tmp_path)(os.getpid()) == "it does not tell its health yet"


async def test_a_port_in_use_is_passed_over_and_the_right_one_is_told(tmp_path: Path) -> None:
    first = Address("127.0.0.1", free_port())
    with first.listening():
        async with serving_health(FINE, role="a", bind=str(first), run_dir=tmp_path) as address:
            assert address.port > first.port
            (process,) = running(tmp_path)
            assert (process.role, process.pid, process.address) == ("a", os.getpid(), str(address))
    assert running(tmp_path) == []


async def test_no_free_port_is_one_sentence(tmp_path: Path) -> None:
    last = Address("127.0.0.1", 65535)
    with last.listening(), pytest.raises(UnavailableError, match="CASEWIRE_METRICS_BIND"):
        async with serving_health(FINE, role="a", bind=str(last), run_dir=tmp_path):
            pass


def test_what_dead_processes_left_behind_is_removed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    me = Running.of("me", os.getpid(), Address("127.0.0.1", 1))
    announce(tmp_path, me)
    announce(tmp_path, Running("dead", process.pid, "127.0.0.1:2", "1"))
    announce(tmp_path, Running("other", os.getpid(), "127.0.0.1:3", "of another process"))
    (tmp_path / "broken-1.json").write_text("{", encoding="utf-8")
    assert start_time(process.pid) is None
    assert running(tmp_path) == [me]
    assert [file.name for file in tmp_path.iterdir()] == [f"me-{os.getpid()}.json"]


async def test_a_port_is_probed_by_connecting() -> None:
    address = Address("127.0.0.1", free_port())
    assert "does not answer" in str(await port_probe(address)(0))
    with address.listening():
        assert await port_probe(address)(0) is None
