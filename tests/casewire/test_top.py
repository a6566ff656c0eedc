"""`casewire top` on a real broker: on a terminal of 80 by 24, without one, and as JSON."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest
from anyio import to_thread
from rich.console import Console

from casewire.addresses import Address
from casewire.alerts.desk import Desk
from casewire.alerts.troubles import Pace
from casewire.circuits import waiting_sinks
from casewire.cli import run
from casewire.config import load_config
from casewire.doctor.processes import missing_roles
from casewire.health import Health, Running, announce, serving_health
from casewire.overview import Overview, Reader
from casewire.top import age, rate, shown
from schemas.alert import Alert, group_of
from schemas.settings import KafkaSettings
from schemas.times import now
from streams.metrics import WRITING
from tests.casewire.test_dead_letters import lettered
from tests.casewire.test_overview import HOUR, append, settings as settings  # noqa: PLC0414
from tests.servers import free_port
from tests.streams.made import Made, captured
from tests.streams.test_worker import send

pytestmark = pytest.mark.anyio

COLUMNS, LINES = 80, 24
DOWN = Alert(
    group=group_of("", "sink:db", "target_unavailable", "db"),
    domain="",
    stage="sink:db",
    cause="target_unavailable",
    target="db",
    text="it does not answer; see that it runs, and that its address in [sinks.db] is right",
    captured_ids=[],
    raised_at=now(),
)


@pytest.fixture
async def env(settings: KafkaSettings, tmp_path: Path) -> dict[str, str]:
    """The environment of an installation where one thing of each kind is wrong."""
    await append(settings, "case-state", 3 * HOUR, HOUR)
    await append(settings, "captured", *[0] * 12)
    await send(settings, "dead-letters", [lettered(captured(b"{")), lettered(captured(b"["))])
    desk = Desk(Pace(900), [])
    desk.report(DOWN)
    told = [Made(out.value, out.key, out.headers) for out in desk.changes()]
    await send(settings, "alert-state", told)
    return {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "CASEWIRE_DATA_DIR": str(tmp_path / "var"),
        "CASEWIRE_KAFKA__TOPIC_PREFIX": settings.topic_prefix,
        "CASEWIRE_KAFKA__PARTITIONS": "2",
        "CASEWIRE_SINKS__DB__TYPE": "sql",
        "CASEWIRE_SINKS__DB__TOPICS": "case-state",
    }


async def test_without_a_terminal_it_is_printed_once_in_80_columns(
    env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert await to_thread.run_sync(run, ["top"], env) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert max(len(line) for line in shown.splitlines()) <= COLUMNS
    (sink,) = [line.split() for line in shown.splitlines() if line.startswith("sink-db")]
    assert sink[:6] == ["sink-db", "2", "3", "h", "0.0", "target_unavailable:"]
    assert re.search(r"decode +malformed_json +2 ", shown)
    assert "/sink:db/target_unavailable/db" in shown
    assert re.search(r"captured +0\.0 ", shown)


async def test_json_has_one_look_with_its_rates(
    env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert await to_thread.run_sync(run, ["top", "--json"], env) == 0
    look = orjson.loads(capsys.readouterr().out)
    (sink,) = [each for each in look["readers"] if each["topic"] == "case-state"]
    assert (sink["role"], sink["lag"], sink["per_second"]) == ("sink-db", 2, 0.0)
    assert [each["count"] for each in look["causes"]] == [2]
    assert [each["status"] for each in look["alerts"]] == ["reported"]


async def test_a_terminal_is_drawn_anew_until_ctrl_c(
    env: dict[str, str], settings: KafkaSettings
) -> None:
    process, screen = on_a_terminal({**env, "TERM": "xterm-256color", "NO_COLOR": "1"})
    try:
        await to_thread.run_sync(read_until, screen, r"sink-db +2 ")
        await append(settings, "case-state", 0)
        text = await to_thread.run_sync(read_until, screen, r"sink-db +3 ")
        process.send_signal(signal.SIGINT)
        text += await to_thread.run_sync(read_until, screen, None)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", text), "a colour"
    assert "Traceback" not in text


def test_roles_are_missed_where_all_should_run_and_nowhere_else(tmp_path: Path) -> None:
    env = {"CASEWIRE_DATA_DIR": str(tmp_path)}
    alone = load_config(None, env)
    assert missing_roles(alone) == ["console", "ingress", "sink-sqlite", "streams"]
    announce(alone.run_dir, Running.of("ingress", os.getpid(), Address("127.0.0.1", 1)))
    assert "ingress" not in missing_roles(alone)
    cluster = load_config(None, {**env, "KAFKA_BOOTSTRAP_SERVERS": "kafka.example.org:9092"})
    assert not missing_roles(cluster)


async def test_a_sink_of_this_machine_whose_target_is_down_is_told_before_an_alert_is(
    tmp_path: Path,
) -> None:
    fine = Health(lambda: None, lambda: None)
    bind = f"127.0.0.1:{free_port()}"
    async with serving_health(fine, role="sink-db", bind=bind, run_dir=tmp_path):
        assert await waiting_sinks(tmp_path) == set()
        WRITING.labels("db").set(1)
        waiting = await waiting_sinks(tmp_path)
        WRITING.labels("db").set(0)
    assert waiting == {"db"}
    look = Overview(now(), [], [Reader("sink-db", "case-state", 2, 5.0, None)], [], [])
    console = Console(width=COLUMNS)
    with console.capture() as drawn:
        console.print(shown(look, waiting, ["ingress", "streams"]))
    assert "does not run: ingress, streams\n" in drawn.get()
    (line,) = [each for each in drawn.get().splitlines() if each.startswith("sink-db")]
    assert line.split(maxsplit=5)[5].startswith("its target is down")


def on_a_terminal(env: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start it on a terminal; return the process, and where to read what is drawn."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "casewire", "top"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, **env},
    )
    os.close(terminal)
    return process, screen


def read_until(screen: int, pattern: str | None) -> str:
    """Return what is drawn until it matches a pattern, or until the end if there is none."""
    deadline = time.monotonic() + 60
    text = ""
    while time.monotonic() < deadline:
        if not select.select([screen], [], [], 1)[0]:
            continue
        try:
            text += os.read(screen, 65536).decode(errors="replace")
        except OSError:  # the terminal's other end is closed
            return text
        if pattern is not None and re.search(pattern, text):
            return text
    raise AssertionError(f"{pattern} was not drawn:\n{text[-4000:]}")


def test_spans_and_rates_are_short() -> None:
    assert [age(each) for each in (0.4, 119, 120, 7199, 7200, 200_000)] == [
        "0 s", "119 s", "2 min", "120 min", "2 h", "2 d",
    ]  # fmt: skip
    assert [rate(each) for each in (None, 0.0, 12.34, 1234.5)] == ["-", "0.0", "12.3", "1,234"]
