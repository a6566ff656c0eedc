"""The two ways from the POST to the row, each with processes of its own."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import requests

from benchmarks.sinks.measure import Spent, family, process
from benchmarks.sinks.ours import SINK
from benchmarks.sinks.place import postmaster
from benchmarks.streams.events import visits
from benchmarks.streams.lab import Topics
from benchmarks.streams.latency import SENT
from tests.end_to_end.system import System
from tests.servers import LocalPostgres, free_port, wait_for_port

_HERE: Final = Path(__file__).parent
_WORKERS: Final = ("-w", "2", "-k", "gthread", "--threads", "4")
PROPERTIES: Final = (
    "case_name", "case_type", "owner_id", "date_opened", "external_id", "visits", "dob", "gender",
    "village", "risk", "next_visit", "note",
)  # fmt: skip
_OWN: Final = ("domain", "case_id", "closed", "date_modified", "server_date_modified", "user_id")


@dataclass(frozen=True, slots=True)
class Way:
    """`url` is posted to; `spent` tells the CPU seconds of each part so far."""

    url: str
    spent: Mapping[str, Spent]


def environment(folder: Path) -> Path:
    """Make the environment of what is written by hand, unless it is there; return its programs."""
    requirements, stamp = _HERE / "requirements.txt", folder / "stamp"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
        install = [uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python")]
        subprocess.run([*install, "-r", str(requirements)], check=True)
        stamp.write_text(requirements.read_text())
    return folder / "bin"


@contextlib.contextmanager
def by_hand(server: LocalPostgres, database: str, programs: Path, log: Path) -> Iterator[Way]:
    """Run Flask under gunicorn: two workers of four threads."""
    columns = ", ".join(f"{name} text" for name in (*_OWN, *PROPERTIES))
    with psycopg.connect(database) as connection:
        text = f"CREATE TABLE by_hand ({columns}, PRIMARY KEY (domain, case_id))"
        connection.execute(text.encode())
    port = free_port()
    command = [str(programs / "gunicorn"), *_WORKERS, "-b", f"127.0.0.1:{port}", "by_hand:app"]
    env = {
        **os.environ,
        "PYTHONPATH": str(_HERE),
        "HOME": str(log.parent),  # where gunicorn has a socket to be asked by
        "BY_HAND_URL": database,
        "BY_HAND_PROPERTIES": ",".join(PROPERTIES),
    }
    with log.open("wb") as output:
        gunicorn = subprocess.Popen(command, stdout=output, stderr=output, env=env)
    try:
        wait_for_port(port, gunicorn, log)
        url = f"http://127.0.0.1:{port}/api/v1/in/demo"
        _require_answer(url)
        spent = {"gunicorn": family(gunicorn.pid), "PostgreSQL": family(postmaster(server))}
        yield Way(url, spent)
    finally:
        gunicorn.terminate()
        gunicorn.wait(30)


def _require_answer(url: str) -> None:
    """Raise HTTPError unless a snapshot is taken. gunicorn listens before its workers are there."""
    body = next(iter(visits(1))).body
    requests.post(url, data=body, headers=SENT, timeout=60).raise_for_status()


def casewire(folder: Path, topics: Topics, database: str) -> System:
    """Return the roles from the POST to the row, not started yet."""
    folder.mkdir(parents=True)
    system = System(folder, topics.kafka, {SINK: {"type": "sql", "url": database}})
    system.write_config()
    return system


def way_of(system: System, server: LocalPostgres, broker: int) -> Way:
    """Return where a started system is posted to."""
    roles: Sequence[str] = system.roles
    return Way(
        system.address("demo"),
        {
            **{role.split()[0]: family(system.processes[role].pid) for role in roles},
            "broker": process(broker),
            "PostgreSQL": family(postmaster(server)),
        },
    )
