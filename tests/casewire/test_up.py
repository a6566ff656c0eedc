import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from casewire.addresses import Address
from casewire.alerts.settings import AlertSettings
from casewire.cli import Launch, run
from casewire.config import load_config
from casewire.demo import Story, command_line, require_open, run_demo, told, where_to_look
from casewire.health import running
from casewire.reading import read_topic
from casewire.simulation.history import Plan
from casewire.sums import Judged, Sums
from casewire.up import plan, surroundings, told_to, welcome
from schemas.errors import ConfigError
from sinks.sql_settings import SqlSettings
from tests.servers import KafkaServer, free_port

pytestmark = pytest.mark.anyio

START_SECONDS = 90


def environment(folder: Path, **more: str) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name == "PATH" or name.startswith("COVERAGE_")
    }
    return {
        **inherited,
        "CASEWIRE_DATA_DIR": str(folder / "var"),
        "CASEWIRE_BROKER_BIND": f"127.0.0.1:{free_port()}",
        "CASEWIRE_INGRESS_BIND": f"127.0.0.1:{free_port()}",
        "CASEWIRE_CONSOLE_BIND": f"127.0.0.1:{free_port()}",
        "CASEWIRE_METRICS_BIND": f"127.0.0.1:{free_port()}",
        "CASEWIRE_KAFKA__PARTITIONS": "2",
        **more,
    }


class Up:
    """A `casewire up` as a process of its own, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []

    @classmethod
    async def start(cls, env: dict[str, str]) -> "Up":
        command = (sys.executable, "-P", "-m", "casewire", "up")
        pipe = asyncio.subprocess.PIPE
        up = cls(await asyncio.create_subprocess_exec(*command, env=env, stdout=pipe, stderr=pipe))
        async with asyncio.timeout(START_SECONDS):
            while not any("casewire is up" in line for line in up.said):
                await up.hear()
        return up

    async def hear(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = await self.process.stdout.readline()
        assert line, (await self.process.stderr.read()).decode()
        self.said.append(line.decode())

    async def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(START_SECONDS):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


async def post(bind: str, body: bytes) -> int:
    headers = {"content-type": "application/json"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"http://{bind}/api/v1/in/demo", data=body) as answer,
    ):
        return answer.status


@pytest.mark.slow
async def test_it_runs_a_demo_survives_kill_9_keeps_its_data_and_frees_its_ports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = environment(tmp_path)
    config = load_config(None, env)
    up = await Up.start(env)
    said: list[str] = []
    story = await run_demo(config, Plan(domain="demo", cases=5, changes=20), said.append)
    assert (story.undelivered, story.differences, story.sums.lost) == (0, [], [])
    assert story.sums.match
    assert story.states + story.gone == 5
    priority = {
        each.role: os.getpriority(os.PRIO_PROCESS, each.pid) for each in running(config.run_dir)
    }
    assert min(priority["streams"], priority["sink-sqlite"]) > priority["ingress"]
    assert run(["up"], env) == 1
    assert f"another casewire up (process {up.process.pid})" in capsys.readouterr().err
    await up.end(signal.SIGKILL)

    again = await Up.start(env)
    assert await post(config.ingress.bind, b"{}") == 200
    events = [record async for record in read_topic(config.cluster, "captured")]
    assert len(events) == story.received + 1
    assert await again.end(signal.SIGINT) == 0
    assert [process.role for process in running(config.run_dir)] == []
    for bind in (config.ingress.bind, config.machine.broker_bind):
        Address.parse(bind).listening().close()


def test_an_address_in_use_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = environment(tmp_path)
    with Address.parse(env["CASEWIRE_INGRESS_BIND"]).listening():
        assert run(["up"], env) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "CASEWIRE_INGRESS_BIND" in error


async def test_on_a_cluster_of_others_no_broker_is_planned(
    kafka: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    env = environment(
        tmp_path,
        KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap_servers,
        CASEWIRE_KAFKA__TOPIC_PREFIX=prefix,
        CASEWIRE_SINKS__A__TYPE="sql",
        CASEWIRE_SINKS__B__TYPE="sql",
    )
    launch = Launch(env, tmp_path / "casewire.toml")
    config = load_config(None, env)
    said: list[str] = []
    around = surroundings(launch, config, said.append)
    planned = await plan(launch, config, around)
    assert planned.broker is None
    assert [[role.name for role in stage] for stage in planned.stages] == [
        ["ingress"],
        ["streams"],
        ["sink-a", "sink-b"],
        ["alerts"],
        ["console"],
    ]
    file = str(tmp_path / "casewire.toml")
    assert planned.stages[2][1].command[-4:] == ("--config", file, "sink", "b")
    assert around.env["KAFKA_BOOTSTRAP_SERVERS"] == kafka.bootstrap_servers


def test_a_welcome_shows_addresses_and_no_password(tmp_path: Path) -> None:
    config = load_config(None, environment(tmp_path))
    assert f"{tmp_path}/var/sqlite/DOMAIN.db" in welcome(config)
    assert f"{config.machine.console_bind}, token in {tmp_path}/var/console.token" in welcome(
        config
    )
    with_users = environment(tmp_path, CASEWIRE_CONSOLE__USERS_FILE="users")
    assert "console.token" not in welcome(load_config(None, with_users))
    assert "nobody is told: see [alerts]" in welcome(config)
    alerts = AlertSettings(mail_to=["a@example.org"], urls=["slack://secret/b/c"])
    assert told_to(alerts) == "a@example.org, slack"
    with_password = SqlSettings(url="postgresql://me:secret@db:5432/x?password=secret")
    assert with_password.place(config.data_dir) == "postgresql://db:5432/x"
    assert SqlSettings(url="sqlite:////srv/x").place(config.data_dir) == "/srv/x/DOMAIN.db"


def test_the_demo_is_refused_where_its_project_could_not_forward(tmp_path: Path) -> None:
    file = tmp_path / "casewire.toml"
    file.write_text("[domains.real]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="--demo sends to a configuration without"):
        require_open(load_config(file, {}))


def story(lost: Sequence[str] = ()) -> Story:
    judged = {"cases": Judged(5, {"applied": 4, "stale": 1}, [])}
    sums = Sums(captured=9, typed={"cases": 5}, dead={"missing_id": 2}, lost=lost, judged=judged)
    return Story(changes=3, received=9, undelivered=0, states=4, gone=1, sums=sums, differences=[])


def test_the_demo_tells_what_happened_and_whether_it_is_right(tmp_path: Path) -> None:
    right = told(story())
    for part in ("9  requests", "4  and 1 that are gone", "4 applied, 1 stale", "2 missing_id"):
        assert part in right
    assert "WRONG" not in right
    wrong = told(replace(story(lost=["x"]), undelivered=1, differences=["case c: missing"]))
    assert wrong.count("WRONG") == 3
    assert "first: case c: missing" in wrong
    told_where = where_to_look(load_config(None, environment(tmp_path)), "http://console")
    assert "/api/v1/in/demo" in told_where
    assert "http://console" in told_where


def test_the_commands_to_try_find_this_very_system(tmp_path: Path) -> None:
    assert command_line(load_config(None, {}), "/usr/bin/pytest") == "casewire"
    env = {"CASEWIRE_DATA_DIR": "var/demo", "CASEWIRE_INGRESS_BIND": "127.0.0.1:1"}
    assert command_line(load_config(None, env), ".venv/bin/casewire") == (
        "CASEWIRE_DATA_DIR=var/demo CASEWIRE_INGRESS_BIND=127.0.0.1:1 .venv/bin/casewire"
    )
