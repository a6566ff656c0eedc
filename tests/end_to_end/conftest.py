import uuid
from collections.abc import AsyncIterator

import psycopg
import pytest

from schemas.settings import KafkaSettings
from tests.end_to_end.system import System, running_system
from tests.servers import KafkaServer, PostgresServer

DATABASE = "end_to_end"


@pytest.fixture(scope="package")
async def system(
    kafka: KafkaServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    """All roles, with SQLite and PostgreSQL as sinks. A test has a domain of its own in it."""
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers,
        topic_prefix=f"e{uuid.uuid4().hex[:10]}.",
        partitions=4,
    )
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        connection.execute(f"CREATE DATABASE {DATABASE}")
    sinks = {
        "files": {"type": "sql"},
        "warehouse": {"type": "sql", "url": postgres.url(DATABASE)},
    }
    folder = tmp_path_factory.mktemp("system")
    async with running_system(System(folder, settings, sinks)) as system:
        yield system
