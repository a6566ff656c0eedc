import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine import Engine, make_base, running_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """An engine with the base. Its socket's path must be short."""
    folder = Path(tempfile.mkdtemp(prefix="casewire-engine-"))
    with running_engine(folder) as running:
        make_base(running)
        yield running
