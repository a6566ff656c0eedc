import asyncio
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas.settings import KafkaSettings
from tests.hq.ingress import Ingress, running_ingress
from tests.kafka_tools import create_topics
from tests.servers import KafkaServer

Captured = Callable[[], dict[str, bytes]]
PREFIX = f"h{uuid.uuid4().hex[:10]}."


@pytest.fixture(scope="package")
def topics(kafka: KafkaServer) -> KafkaSettings:
    """The topics into which the ingresses of all tests here write."""
    asyncio.run(create_topics(kafka.bootstrap_servers, PREFIX, ["captured", "bodies"]))
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=PREFIX)


@pytest.fixture(scope="package")
def ingress(topics: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    """An ingress that knows the project space `demo` and asks it for nothing."""
    with running_ingress(Ingress(tmp_path_factory.mktemp("ingress"), topics)) as one:
        yield one


@pytest.fixture
def secrets(tmp_path: Path) -> Callable[[str, str], str]:
    """Write a secret to a file; return the line of the configuration that names the file."""

    def write(name: str, secret: str) -> str:
        file = tmp_path / f"{name}.secret"
        file.write_text(secret, encoding="utf-8")
        file.chmod(0o600)
        return f'secret_file = "{file}"'

    return write
