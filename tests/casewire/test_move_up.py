"""From `casewire up` to a cluster by the command line, killed on the way, and on from there."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from casewire.config import load_config
from casewire.demo import run_demo
from casewire.reading import read_topic
from casewire.simulation.history import Plan
from schemas.case import CaseState
from tests.casewire.test_up import START_SECONDS, Up, environment, post
from tests.end_to_end.tables import sqlite_query
from tests.servers import running_kafka

pytestmark = [pytest.mark.anyio, pytest.mark.nightly]

FIRST = Plan(domain="demo", cases=100, changes=1500)
LATER = Plan(domain="demo", cases=20, changes=100)


async def moving(env: dict[str, str], to: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "casewire", "broker", "move", "--to", to,
        env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


async def test_a_machine_s_events_move_to_a_cluster_and_all_goes_on_there(tmp_path: Path) -> None:
    env = environment(tmp_path)
    here = load_config(None, env)
    up = await Up.start(env)
    story = await run_demo(here, FIRST, lambda _: None)
    assert story.sums.match
    refused = await moving(env, "127.0.0.1:9")
    said = (await refused.communicate())[0].decode()
    assert refused.returncode == 1, said
    assert "another casewire up" in said
    captured = {
        (r.partition, r.offset): r.value async for r in read_topic(here.cluster, "captured")
    }
    assert await up.end(signal.SIGINT) == 0

    with running_kafka(tmp_path / "cluster") as cluster:
        to = cluster.bootstrap_servers
        killed = await moving(env, to)
        assert killed.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            heard = b""
            while b"copied" not in heard:
                line = await killed.stdout.readline()
                assert line, heard.decode()
                heard += line
        killed.kill()
        await killed.wait()
        for _ in range(2):
            again = await moving(env, to)
            said = (await again.communicate())[0].decode()
            assert again.returncode == 0, said
            assert f"everything is at {to}, and checked" in said

        env_there = {**env, "KAFKA_BOOTSTRAP_SERVERS": to}
        there = load_config(None, env_there)
        moved = {
            (r.partition, r.offset): r.value async for r in read_topic(there.cluster, "captured")
        }
        assert moved == captured
        up = await Up.start(env_there)
        assert await post(there.ingress.bind, b"<broken") == 200
        later = await run_demo(there, LATER, lambda _: None)
        assert (later.undelivered, later.sums.lost) == (0, [])
        assert later.sums.match
        assert later.sums.captured == len(captured) + later.received + 1
        states = [
            CaseState.from_json(record.value)
            async for record in read_topic(there.cluster, "case-state")
            if record.value
        ]
        rows = sqlite_query(there.data_dir / "sqlite" / "demo.db")("SELECT * FROM cases")
        assert {row["case_id"]: row["version"] for row in rows} == {
            state.case_id: state.version for state in states
        }
        assert await up.end(signal.SIGINT) == 0
