"""Apache Kafka on one machine: one KRaft node from the jars that docker/kafka/pom.xml names."""

import base64
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.errors import UnavailableError

ROOT: Final = Path(__file__).parent.parent
KAFKA: Final = ROOT / "docker" / "kafka"
LIBS: Final = KAFKA / "libs"

_DEBIAN: Final = "apt-get install openjdk-17-jre-headless maven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A broker that listens on `host:port` and its controller on `host:controller_port`.

    `data_dir` is its own: log segments, settings and `broker.log`.
    """

    data_dir: Path
    host: str
    port: int
    controller_port: int
    heap_mb: int = 512

    @property
    def bootstrap_servers(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def log_file(self) -> Path:
        return self.data_dir / "broker.log"

    def prepare(self) -> Sequence[str]:
        """Get the jars, write the settings, format the log directory once; return the command.

        Raises UnavailableError if Java or Maven is missing or does not do its part.
        """
        java = shutil.which("java")
        if java is None:
            raise UnavailableError(f"the broker needs Java 17, which is not installed: {_DEBIAN}")
        fetch_jars()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        settings = self.data_dir / "server.properties"
        settings.write_text(self._settings(), encoding="utf-8")
        if not (self.data_dir / "log" / "meta.properties").exists():
            tool = [*self._java(java, 128), "kafka.tools.StorageTool", "format"]
            _run(
                [*tool, "-t", cluster_id(uuid.uuid4()), "-c", str(settings)],
                "formatting the broker's storage",
            )
        return [*self._java(java, self.heap_mb), "kafka.Kafka", str(settings)]

    def _java(self, java: str, heap_mb: int) -> list[str]:
        return [
            java,
            f"-Xmx{heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",  # starts in half the time (measured.md §1)
            "-XX:+ExitOnOutOfMemoryError",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            "-cp",
            f"{LIBS}/*",
        ]

    def _settings(self) -> str:
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{self.host}:{self.controller_port}",
            "listeners": (
                f"PLAINTEXT://{self.host}:{self.port},"
                f"CONTROLLER://{self.host}:{self.controller_port}"
            ),
            "advertised.listeners": f"PLAINTEXT://{self.host}:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.data_dir / "log"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "8",
            # A sink that was off for a month still knows where it stopped.
            "offsets.retention.minutes": str(30 * 24 * 60),
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # After a crash the broker waits until the one that it was is given up.
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "2000",
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


def cluster_id(number: uuid.UUID) -> str:
    """Return an id in Kafka's form: 16 bytes in base64.

    It begins with a letter: Kafka's tool takes one that begins with `-` for an option.
    """
    return "c" + base64.urlsafe_b64encode(number.bytes)[1:22].decode()


def fetch_jars(place: Path = KAFKA) -> Path:
    """Have Maven copy the jars that `pom.xml` names into `libs`, unless they are there already."""
    pom, libs = place / "pom.xml", place / "libs"
    wanted = pom.read_text(encoding="utf-8")
    stamp = libs / "pom.xml"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return libs
    maven = shutil.which("mvn")
    if maven is None:
        raise UnavailableError(f"getting the jars needs Maven, which is not installed: {_DEBIAN}")
    shutil.rmtree(libs, ignore_errors=True)
    copy = ["dependency:copy-dependencies", f"-DoutputDirectory={libs}"]
    _run([maven, "-q", "-B", "-f", str(pom), *copy], "getting the jars with Maven")
    stamp.write_text(wanted, encoding="utf-8")
    return libs


def _run(command: Sequence[str], doing: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()[-5:]
        raise UnavailableError(f"{doing} failed: {' / '.join(said)}")
