"""The rig, and what a failed run says: the command that repeats it."""

from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from tests.chaos.rig import Rig, running_rig
from tests.chaos.seeds import RUNS, SEED
from tests.servers import running_kafka


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    with running_kafka(tmp_path / "kafka") as broker:
        async with running_rig(tmp_path / "system", [broker]) as rig:
            yield rig


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        command = (
            f"CHAOS_SEED={SEED} CHAOS_RUNS={RUNS} .venv/bin/pytest --no-cov -m '' '{item.nodeid}'"
        )
        report.sections.append((f"seed {SEED}; to repeat it", command))
    return report
