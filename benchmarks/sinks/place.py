"""Where the writers run: a broker, a PostgreSQL, and the programs that are compared."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from benchmarks.sinks.measure import Watch, family, process
from benchmarks.streams.lab import Topics
from tests.servers import LocalPostgres, running_postgres

_HERE: Final = Path(__file__).parent
_STOP_SECONDS: Final = 30
#: So that no checkpoint falls into a run, as an operator would have it on a server that writes.
_SETTINGS: Final = {"max_wal_size": "4GB", "checkpoint_timeout": "30min"}


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs in a folder of the benchmark's own. `connect` has the plug-ins of Kafka Connect."""

    bin: Path
    connect: Path

    @classmethod
    def made(cls, folder: Path) -> "Tools":
        """Get commcare-export, py-spy and Debezium by uv and Maven, unless they are there."""
        venv, plugins = folder / "venv", folder / "connect"
        jars = plugins / "debezium-jdbc"
        requirements, pom = _HERE / "requirements.txt", _HERE / "java" / "pom.xml"
        wanted = requirements.read_text() + pom.read_text()
        stamp = folder / "stamp"
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            uv = str(Path(sys.executable).parent / "uv")
            subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(venv)], check=True)
            install = [uv, "pip", "install", "-q", "--python", str(venv / "bin" / "python")]
            subprocess.run([*install, "-r", str(requirements)], check=True)
            copy = ["dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
            subprocess.run(["mvn", "-q", "-B", "-f", str(pom), *copy], check=True)
            _without_connects_own(jars)
            stamp.write_text(wanted)
        return cls(venv / "bin", plugins)


def _without_connects_own(jars: Path) -> None:
    """Remove what Connect has too: two Jacksons in one process do not know each other's types."""
    for stem in ("jackson-core", "jackson-databind", "jackson-annotations", "slf4j-api"):
        for jar in jars.glob(f"{stem}-*.jar"):
            jar.unlink()


@dataclass(frozen=True, slots=True)
class Place:
    """`topics` hold `total` events; what runs is watched by the processes' ids."""

    topics: Topics
    postgres: LocalPostgres
    broker: int
    total: int

    def watch(self, pid: int) -> Watch:
        return Watch(
            {
                "writer": process(pid),
                "postgres": family(postmaster(self.postgres)),
                "broker": process(self.broker),
            }
        )

    @property
    def warm(self) -> int:
        """How many events are written before what is measured."""
        return self.total // 3


def postmaster(server: LocalPostgres) -> int:
    """Return the id of the process whose children are the sessions."""
    text = (server.data_dir / "postmaster.pid").read_text(encoding="ascii")
    return int(text.splitlines()[0])


@contextlib.contextmanager
def tuned_postgres() -> Iterator[LocalPostgres]:
    """Run a server that is safe (fsync) and has no checkpoint while it is measured."""
    with running_postgres() as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            for name, value in _SETTINGS.items():
                text = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), value)
                connection.execute(text)
            connection.execute("SELECT pg_reload_conf()")
        yield server


@contextlib.contextmanager
def database(server: LocalPostgres, name: str) -> Iterator[str]:
    """Create an empty database, give its URL, and drop it."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        identifier = sql.Identifier(name)
        connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        try:
            yield server.url(name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def table_rows(url: str, table: str, key: str) -> Mapping[str, Mapping[str, str | None]]:
    """Return a table's rows by key, by the names of its columns."""
    with psycopg.connect(url) as connection:
        found = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
        names = [column.name for column in found.description or ()]
        return {row[names.index(key)]: dict(zip(names, row, strict=True)) for row in found}


def log_in(folder: Path) -> Path:
    """Make a folder for a run; return the file for what its program says."""
    folder.mkdir(parents=True)
    return folder / "log"


def end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8")[-3000:]


@contextlib.asynccontextmanager
async def running(command: Sequence[str], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program, and end it, by force if it does not end."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
