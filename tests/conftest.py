import os
import uuid
from collections.abc import Iterator

import pytest

from tests.provided import ADDRESSES, Provided
from tests.servers import KafkaServer, PostgresServer

PROVIDED = Provided(dict(os.environ))
# The program would take them for its own.
for _name in ADDRESSES:
    os.environ.pop(_name, None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for server, told in PROVIDED.told.items():
        terminalreporter.write_line(f"{server}: {told}")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A real broker that all tests share. Use `prefix` to have topics of your own."""
    with PROVIDED.kafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}."


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL that all tests share. Use a database or schema of your own."""
    with PROVIDED.postgres() as server:
        yield server
