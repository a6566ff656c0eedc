"""The containers of docker/compose.yaml, as docker-compose 1.29 runs them."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import yaml

from casewire.broker import ROOT
from casewire.truth import Truth
from tests.containers.engine import Engine, build_stand_in, output
from tests.end_to_end.tables import Held, held_cases, postgres_query
from tests.servers import free_port

DOMAIN = "my-project"
#: The stages of debian.Dockerfile for images that no registry gives to the tests; Grafana has none.
STAND_INS = {
    "PYTHON_BASE": "python",
    "CADDY_BASE": "caddy",
    "POSTGRES_IMAGE": "postgres",
    "PROMETHEUS_IMAGE": "prometheus",
    "ALERTMANAGER_IMAGE": "alertmanager",
}
LEFT_OUT = {"grafana"}

_UP_SECONDS = 400
_ROWS_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Stack:
    """A project of compose's in a copy of the repository.

    `services` are those that can run here, `ports` those on this machine, `images` the stand-ins.
    """

    engine: Engine
    folder: Path
    files: Sequence[str]
    services: Sequence[str]
    ports: Mapping[str, int]
    images: Mapping[str, str]
    password: str

    def compose(self, *arguments: str, seconds: float = 120) -> str:
        files = [part for file in self.files for part in ("-f", file)]
        command = ("docker-compose", "--project-directory", ".", *files, *arguments)
        ports = {name: str(port) for name, port in self.ports.items()}
        env = {**os.environ, **self.images, **ports, "DOCKER_HOST": self.engine.address}
        with contextlib.chdir(self.folder / "docker"):
            return output(command, seconds, env)

    def container(self, service: str) -> str:
        """Return a container's name: compose 1.29 takes the folder's for the project's."""
        return f"docker_{service}_1"

    def address(self, service: str) -> str:
        """Return a container's own address, which this machine reaches."""
        networks = self.engine.inspect(self.container(service))["NetworkSettings"]["Networks"]
        (network,) = networks.values()
        found: str = network["IPAddress"]
        return found

    def await_healthy(self) -> None:
        """Return when each container that can tell says that it is healthy."""
        wait_until(lambda: all(map(self._well, self.services)), _UP_SECONDS)

    def _well(self, service: str) -> bool:
        state = self.engine.inspect(self.container(service))["State"]
        if service == "topics":
            return bool(state["Status"] == "exited" and state["ExitCode"] == 0)
        return bool(state["Running"] and state.get("Health", {}).get("Status") in (None, "healthy"))

    @property
    def certificate(self) -> Path:
        """Caddy's own authority, in a file."""
        file = self.folder / "caddy.crt"
        place = "/data/caddy/pki/authorities/local/root.crt"
        file.write_text(self.compose("exec", "-T", "caddy", "cat", place))
        return file

    def send(self, seed: int, *options: str) -> subprocess.Popen[bytes]:
        """Begin to send a simulated project, through Caddy's TLS; its truth is in `truth.json`."""
        secret = self.folder / "password"
        secret.write_text(self.password)
        address = f"https://localhost:{self.ports['HTTPS_PORT']}/api/v1/in/{DOMAIN}"
        command = [sys.executable, "-P", "-m", "casewire", "simulate", "--seed", str(seed)]
        command += ["--to", address, "--user", "commcare-hq", "--password-file", str(secret)]
        command += ["--format", "json", "--truth", str(self.folder / "truth.json"), *options]
        return subprocess.Popen(command, env={**os.environ, "SSL_CERT_FILE": str(self.certificate)})


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Return when the condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.5)


def await_right_rows(stack: Stack) -> None:
    """Return when PostgreSQL's tables are as the truth says; fail with what differs in the end."""
    truth = Truth.from_json((stack.folder / "truth.json").read_bytes())
    secret = (stack.folder / "docker/local/secrets/postgres").read_text(encoding="ascii")
    url = f"postgresql://casewire:{secret}@{stack.address('postgres')}/warehouse"
    wrong = ["nothing is there yet"]

    def right() -> bool:
        with contextlib.suppress(psycopg.Error):  # the tables come with the first rows
            wrong[:] = _unlike(truth, held_cases(postgres_query(url, DOMAIN)))
        return not wrong

    with contextlib.suppress(TimeoutError):
        wait_until(right, _ROWS_SECONDS)
    assert wrong == []


def _unlike(truth: Truth, held: Mapping[str, Held]) -> Iterator[str]:
    living = {case_id: case.state for case_id, case in truth.cases.items() if not case.deleted}
    for case_id in held.keys() ^ living.keys():
        yield f"case {case_id} is {'missing' if case_id in living else 'there'}"
    for case_id in held.keys() & living.keys():
        state, row = living[case_id], held[case_id]
        properties = {name: text for name, text in state["properties"].items() if text is not None}
        if (row.closed, row.properties) != (state["closed"], properties):
            yield f"case {case_id}: {row} instead of {state}"


@contextlib.contextmanager
def running_stack(engine: Engine, folder: Path, files: Sequence[str]) -> Iterator[Stack]:
    """Build what compose builds, and run it until the end of the block."""
    left = shutil.ignore_patterns(".*", "var", "libs", "local", "node_modules", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=left, symlinks=True)
    for name in (".dockerignore", "docker/.env", "docker/kafka/.dockerignore"):
        shutil.copy(ROOT / name, folder / name)
    said = output((str(folder / "docker/setup"), DOMAIN))
    password = said.partition("Password")[2].split()[0]
    ports = ("HTTPS_PORT", "HTTP_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "CONSOLE_PORT")
    services = {name for file in files for name in _services(folder / "docker" / file)}
    stack = Stack(
        engine=engine,
        folder=folder,
        files=files,
        services=sorted(services - LEFT_OUT),
        ports={name: free_port() for name in ports},
        images={name: build_stand_in(engine, stage) for name, stage in STAND_INS.items()},
        password=password,
    )
    stack.compose("build", "-q", seconds=1800)
    try:
        stack.compose("up", "-d", *stack.services, seconds=_UP_SECONDS)
        stack.await_healthy()
        yield stack
    except Exception as error:
        error.add_note(stack.compose("logs", "--no-color", "--tail", "15"))
        raise
    finally:
        stack.compose("down", "--volumes", "--timeout", "20", seconds=_UP_SECONDS)


def _services(file: Path) -> Sequence[str]:
    return list(yaml.safe_load(file.read_text(encoding="utf-8"))["services"])
