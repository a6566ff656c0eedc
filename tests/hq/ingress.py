"""`casewire ingress` as a process of its own, as an operator runs it."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import requests

from casewire.health import running
from schemas.settings import KafkaSettings
from tests.servers import free_port

START_SECONDS = 60


@dataclass(slots=True)
class Ingress:
    """`tables` is what casewire.toml says beside addresses: project spaces and credentials.

    `keys` are lines of `[ingress]`.
    """

    folder: Path
    kafka: KafkaSettings
    tables: str = "[domains.demo]\n"
    keys: str = ""
    scheme: str = "http"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def origin(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def address(self, domain: str = "demo") -> str:
        return f"{self.origin}/api/v1/in/{domain}"

    @property
    def log_file(self) -> Path:
        return self.folder / "ingress.log"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def metrics_url(self) -> str:
        """The address of the metrics of the running process; it has to be ready."""
        [address] = [
            one.address for one in running(self.folder / "data" / "run") if one.pid == self.pid
        ]
        return f"http://{address}/metrics"

    def start(self) -> None:
        """Start it; it may not be ready yet."""
        config = self.folder / "casewire.toml"
        config.write_text(
            f'data_dir = "{self.folder}/data"\n'
            f'metrics_bind = "127.0.0.1:{free_port()}"\n'
            "[kafka]\n"
            f'bootstrap_servers = "{self.kafka.bootstrap_servers}"\n'
            f'topic_prefix = "{self.kafka.topic_prefix}"\n'
            "[ingress]\n"
            f'bind = "127.0.0.1:{self.port}"\n'
            f"{self.keys}\n{self.tables}",
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "casewire", "--config", str(config), "ingress"]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait_until_ready(self) -> None:
        """Return when its readiness probe says so; fail if the process has ended."""
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            assert self.process is not None
            assert self.process.poll() is None, self.log_file.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log_file.read_text()[-3000:]
            time.sleep(0.05)

    def stop(self) -> int:
        """Stop it as systemd does; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def _ready(self) -> bool:
        for one in running(self.folder / "data" / "run"):
            if self.process is not None and one.pid == self.process.pid:
                with contextlib.suppress(requests.RequestException):
                    probe = requests.get(f"http://{one.address}/health/ready", timeout=5)
                    return probe.status_code == 200
        return False


@contextlib.contextmanager
def running_ingress(ingress: Ingress) -> Iterator[Ingress]:
    ingress.folder.mkdir(parents=True, exist_ok=True)
    ingress.start()
    try:
        ingress.wait_until_ready()
        yield ingress
    finally:
        ingress.stop()
