import uuid
from pathlib import Path

import pytest

from tests.contract.rigs import MemoryRig, PostgresRig, Rig, SqliteRig
from tests.servers import PostgresServer


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    if request.param == "memory":
        return MemoryRig()
    if request.param == "sqlite":
        return SqliteRig(tmp_path / "sqlite")
    server: PostgresServer = request.getfixturevalue("postgres")
    return PostgresRig(server.url())


@pytest.fixture
def domain() -> str:
    """A project space that no other test uses."""
    return f"d-{uuid.uuid4().hex[:12]}"
