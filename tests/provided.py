"""Which broker and which PostgreSQL the tests share. There is always one: no test is skipped.

- `external`: the broker at KAFKA_BOOTSTRAP_SERVERS, the PostgreSQL at TEST_POSTGRES_URL (of a
  superuser, without a database; all roles must get in without a word).
- `docker`: containers on the engine that answers, of the images TEST_KAFKA_IMAGE and
  TEST_POSTGRES_IMAGE.
- `local`: programs of this machine.

Each is taken from the first of these that there is; TEST_SERVERS forces one. Tests that kill,
freeze or start anew a server have a local one of their own (tests/servers.py) all the same.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError

from tests.servers import (
    START_SECONDS,
    KafkaServer,
    PostgresServer,
    free_port,
    running_kafka,
    running_postgres,
)

Kind: TypeAlias = Literal["external", "docker", "local"]

ADDRESSES: Final = ("KAFKA_BOOTSTRAP_SERVERS", "TEST_POSTGRES_URL")
#: The image of docker/kafka/ if it was built, else Kafka's own.
KAFKA_IMAGES: Final = ("casewire-kafka:local", "apache/kafka:4.1.0")
POSTGRES_IMAGES: Final = ("postgres:16-bookworm",)
_POSTGRES_PORT: Final = 5432


def kind_of(forced: str, address: str, image: Callable[[], str]) -> Kind:
    """Return which server to take; `image` asks Docker for one that is there, empty if none.

    Raises UsageError if what is forced is not to be had.
    """
    if forced not in ("", *get_args(Kind)):
        raise pytest.UsageError(f"TEST_SERVERS is {forced}; it is one of {get_args(Kind)}")
    if forced == "external" and not address:
        raise pytest.UsageError(f"TEST_SERVERS is external; set {' and '.join(ADDRESSES)}")
    if forced == "docker" and not image():
        raise pytest.UsageError("TEST_SERVERS is docker; start an engine that has the images")
    if forced == "local" or (not forced and not address and not image()):
        return "local"
    return "docker" if forced == "docker" or not address else "external"


@dataclass(slots=True)
class Provided:
    """The servers of a test run. `told` says what was taken, for the end of the run."""

    env: Mapping[str, str]
    told: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def kafka(self, folder: Path) -> Iterator[KafkaServer]:
        """Run a broker, or take the one that runs."""
        image = _image_of(self.env.get("TEST_KAFKA_IMAGE", ""), KAFKA_IMAGES)
        address = self.env.get("KAFKA_BOOTSTRAP_SERVERS", "")
        match self._kind(address, image):
            case "external":
                self.told["Kafka"] = f"the one at {address}"
                yield KafkaServer(address)
            case "docker":
                self.told["Kafka"] = f"a container of {image()}"
                with _kafka_container(image()) as server:
                    yield server
            case "local":
                self.told["Kafka"] = "jars of this machine"
                with running_kafka(folder) as server:
                    yield server

    @contextlib.contextmanager
    def postgres(self) -> Iterator[PostgresServer]:
        """Run a PostgreSQL, or take the one that runs."""
        image = _image_of(self.env.get("TEST_POSTGRES_IMAGE", ""), POSTGRES_IMAGES)
        address = self.env.get("TEST_POSTGRES_URL", "")
        match self._kind(address, image):
            case "external":
                server = PostgresServer(address)
                self.told["PostgreSQL"] = f"the one at port {server.port}"
                yield server
            case "docker":
                self.told["PostgreSQL"] = f"a container of {image()}"
                with _postgres_container(image()) as server:
                    yield server
            case "local":
                self.told["PostgreSQL"] = "programs of this machine"
                with running_postgres() as server:
                    yield server

    def _kind(self, address: str, image: Callable[[], str]) -> Kind:
        return kind_of(self.env.get("TEST_SERVERS", ""), address, image)


def _image_of(given: str, known: tuple[str, ...]) -> Callable[[], str]:
    """Return what asks Docker for the first of these images that it has, or can pull."""
    found: list[str] = []

    def image() -> str:
        if not found:
            found.append(_first_image((given,) if given else known))
        return found[0]

    return image


def _engine_answers(address: str) -> bool:
    """Whether somebody listens at Docker's address; one that is no socket is taken for right."""
    scheme, _, path = address.partition("://")
    if scheme != "unix":
        return True
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except OSError:
            return False
    return True


def _first_image(names: tuple[str, ...]) -> str:
    if not _engine_answers(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"):
        return ""
    # Not at the top: most runs need neither, and testcontainers asks the environment on import.
    from docker.errors import DockerException  # noqa: PLC0415
    from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415

    client = DockerClient(timeout=START_SECONDS).client
    with contextlib.closing(client):
        for ask in (client.images.get, client.images.pull):
            for name in names:
                with contextlib.suppress(DockerException):
                    ask(name)
                    return name
    return ""


@contextlib.contextmanager
def _container(image: str, port: int, host_port: int, env: Mapping[str, str]) -> Iterator[None]:
    from testcontainers.core.config import testcontainers_config  # noqa: PLC0415
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415

    # Ryuk removes what a killed run leaves, and is an image more to pull; these end with the run.
    testcontainers_config.ryuk_disabled = True
    container = DockerContainer(image, env=dict(env))
    # Docker takes an address with the port; testcontainers' types and methods do not.
    place: Any = ("127.0.0.1", host_port)
    container.ports[str(port)] = place
    with container:
        try:
            yield
        except Exception as error:
            error.add_note(container.get_wrapped_container().logs(tail=30).decode())
            raise


@contextlib.contextmanager
def _kafka_container(image: str) -> Iterator[KafkaServer]:
    # The same port inside: the broker calls itself by the address that it tells its clients.
    port = free_port()
    server = KafkaServer(f"127.0.0.1:{port}")
    env = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{server.bootstrap_servers}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "8",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }
    with _container(image, port, port, env):
        asyncio.run(_await_broker(server.bootstrap_servers))
        yield server


async def _await_broker(bootstrap: str) -> None:
    """Return when it answers: Docker accepts connections before the broker does."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        try:
            await client.start()
        except KafkaConnectionError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            return
        finally:
            await client.close()


@contextlib.contextmanager
def _postgres_container(image: str) -> Iterator[PostgresServer]:
    host_port = free_port()
    server = PostgresServer(f"postgresql://postgres@127.0.0.1:{host_port}")
    with _container(image, _POSTGRES_PORT, host_port, {"POSTGRES_HOST_AUTH_METHOD": "trust"}):
        server.await_session()
        yield server
