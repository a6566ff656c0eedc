"""Real servers for the tests: a broker and a PostgreSQL, each on a free port of its own.

Those that a test kills, freezes or starts anew are LocalKafka and LocalPostgres: programs of this
machine. What all tests share (`kafka`, `postgres`) may be others: see tests/provided.py.
"""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import psycopg

from casewire.broker import ROOT, Broker, cluster_id, fetch_jars

START_SECONDS = 60


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the port accepts a connection; fail with the log's end if the process ends."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    process.kill()
    raise RuntimeError(f"no server on port {port}:\n{log.read_text()[-2000:]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node(Broker):
    """A broker with settings of its own, whose cluster's id may be shared with others.

    `scram` are passwords by user, for SCRAM-SHA-512.
    """

    cluster: str
    more: Mapping[str, str]
    scram: Mapping[str, str] = field(default_factory=dict)

    def _settings(self) -> str:
        more = "".join(f"{name}={value}\n" for name, value in self.more.items())
        return Broker._settings(self) + more  # of two values Java takes the last

    def prepare(self) -> Sequence[str]:
        fetch_jars()
        if not self.data_dir.exists():
            self.data_dir.mkdir(parents=True)
            settings = self.data_dir / "format.properties"
            settings.write_text(self._settings(), encoding="utf-8")
            tool = [*self._java("java", 128), "kafka.tools.StorageTool", "format"]
            command = [*tool, "-t", self.cluster, "-c", str(settings)]
            for user, password in self.scram.items():
                command += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
            subprocess.run(command, check=True, capture_output=True)
        return Broker.prepare(self)


def node(data_dir: Path, more: Mapping[str, str]) -> Node:
    return Node(
        data_dir=data_dir,
        host="127.0.0.1",
        port=free_port(),
        controller_port=free_port(),
        heap_mb=384,
        cluster=cluster_id(uuid.uuid4()),
        more=more,
    )


def cluster_of_three(folder: Path) -> Sequence[Node]:
    """Return three nodes that are broker and controller each, and keep everything three times."""
    nodes = [node(folder / f"kafka-{number}", {}) for number in (1, 2, 3)]
    voters = ",".join(f"{n}@{each.host}:{each.controller_port}" for n, each in enumerate(nodes, 1))
    more = {
        "controller.quorum.voters": voters,
        "offsets.topic.replication.factor": "3",
        "transaction.state.log.replication.factor": "3",
        "transaction.state.log.min.isr": "2",
        "replica.lag.time.max.ms": "3000",
    }
    return [
        replace(each, cluster=nodes[0].cluster, more={**more, "node.id": str(number)})
        for number, each in enumerate(nodes, 1)
    ]


class KafkaServer:
    """A broker that is there; whose it is, and where it runs, a test need not know."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers


class LocalKafka(KafkaServer):
    """A broker that a test may kill and start again on the same data."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker.bootstrap_servers)
        self.broker = broker
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = self.broker.prepare()
        with self.broker.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for_port(self.broker.port, self.process, self.broker.log_file)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def postgres_binaries() -> Path:
    """Return the folder of PostgreSQL's server programs."""
    on_path = shutil.which("postgres")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if on_path is None and not found:
        raise RuntimeError("the tests need PostgreSQL's server: apt-get install postgresql")
    return Path(on_path).parent if on_path else found[-1].parent


class PostgresServer:
    """A PostgreSQL server that is there; its superuser, and all roles, log in without a word.

    `address` is a URL without a database.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.address = address.rstrip("/")
        self.user = parts.username or "postgres"
        self.port = parts.port or 5432

    def url(self, database: str = "postgres") -> str:
        return f"{self.address}/{database}"

    def await_session(self) -> None:
        """PostgreSQL listens before it has recovered, and refuses sessions until then."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return


class LocalPostgres(PostgresServer):
    """A PostgreSQL server that a test may kill and start again on the same data."""

    def __init__(self, data_dir: Path) -> None:
        # PostgreSQL refuses to run as root.
        user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        super().__init__(f"postgresql://{user}@127.0.0.1:{free_port()}")
        self.data_dir = data_dir
        self.process: subprocess.Popen[bytes] | None = None

    def _command(self, program: str, *arguments: str) -> Sequence[str]:
        prefix = ("runuser", "-u", "postgres", "--") if os.geteuid() == 0 else ()
        return (*prefix, str(postgres_binaries() / program), *arguments)

    def start(self) -> None:
        log_file = self.data_dir.parent / f"{self.data_dir.name}.log"
        if not self.data_dir.exists():
            self.data_dir.mkdir(mode=0o700)
            if os.geteuid() == 0:
                shutil.chown(self.data_dir, "postgres", "postgres")
                self.data_dir.parent.chmod(0o711)
            options = ("-A", "trust", "-U", self.user, "-E", "UTF8", "--locale=C", "--no-sync")
            initdb = self._command("initdb", "-D", str(self.data_dir), *options)
            subprocess.run(initdb, check=True, capture_output=True)
        serve = self._command(
            "postgres", "-D", str(self.data_dir), "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
            "-c", "max_connections=50",
        )  # fmt: skip
        with log_file.open("ab") as log:
            self.process = subprocess.Popen(serve, stdout=log, stderr=log)
        wait_for_port(self.port, self.process, log_file)
        self.await_session()

    def stop(self, mode: str = "immediate") -> None:
        """Stop as `pg_ctl stop -m MODE` does; `immediate` is a crash."""
        if self.process is not None:
            stop = self._command("pg_ctl", "stop", "-D", str(self.data_dir), "-m", mode)
            subprocess.run(stop, check=True, capture_output=True)
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def running_kafka(
    data_dir: Path, more: Mapping[str, str] = MappingProxyType({})
) -> Iterator[LocalKafka]:
    """Run a broker; `more` are settings of Kafka's beside Casewire's own."""
    server = LocalKafka(node(data_dir, more))
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[Sequence[LocalKafka]]:
    """Run three brokers that are one cluster."""
    servers = [LocalKafka(each) for each in cluster_of_three(folder)]
    try:
        with ThreadPoolExecutor() as pool:  # none is ready before two are
            list(pool.map(LocalKafka.start, servers))
        yield servers
    finally:
        for server in servers:
            server.kill()


@contextlib.contextmanager
def running_postgres() -> Iterator[LocalPostgres]:
    """Run a server on data of its own.

    They are not in pytest's folder: each start of another pytest closes that to the user who runs
    PostgreSQL.
    """
    with tempfile.TemporaryDirectory(prefix="casewire-postgres-") as folder:
        server = LocalPostgres(Path(folder) / "data")
        server.start()
        try:
            yield server
        finally:
            server.stop()


class S3Server:
    """An S3 server (S3Proxy on a folder), where each bucket is a folder of `data_dir`."""

    user = "local-identity"
    secret = "local-credential"

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def make_bucket(self, name: str) -> None:
        (self.data_dir / name).mkdir(parents=True)

    def start(self) -> None:
        libs = fetch_jars(ROOT / "docker" / "s3proxy")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        settings, log = self.data_dir.with_suffix(".conf"), self.data_dir.with_suffix(".log")
        lines = {
            "s3proxy.endpoint": f"http://{self.address}",
            "s3proxy.authorization": "aws-v2-or-v4",
            "s3proxy.identity": self.user,
            "s3proxy.credential": self.secret,
            "jclouds.provider": "filesystem-nio2",
            "jclouds.identity": self.user,
            "jclouds.credential": self.secret,
            "jclouds.filesystem.basedir": str(self.data_dir),
        }
        settings.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        quiet = self.data_dir.with_suffix(".xml")
        quiet.write_text('<configuration><root level="WARN"/></configuration>')
        command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{libs}/*"]
        command.append(f"-Dlogback.configurationFile={quiet}")
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, "org.gaul.s3proxy.Main", "--properties", str(settings)],
                stdout=output,
                stderr=output,
            )
        wait_for_port(self.port, self.process, log)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
