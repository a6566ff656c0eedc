"""`casewire sink NAME --rebuild`: latest states into tables that somebody dropped."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from casewire.cli import run
from schemas.settings import KafkaSettings
from tests.contract.rigs import case_state, form_state
from tests.streams.made import Made
from tests.streams.test_worker import send, settings as settings  # noqa: PLC0414 - a fixture

pytestmark = pytest.mark.anyio

_SINKS = """
[sinks.tables]
type = "sql"
[sinks.hook]
type = "http"
url = "http://127.0.0.1:9/"
"""


async def rebuilt(settings: KafkaSettings, data_dir: Path, name: str) -> int:
    config = data_dir / "casewire.toml"
    config.write_text(_SINKS, encoding="utf-8")
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "CASEWIRE_KAFKA__TOPIC_PREFIX": settings.topic_prefix,
        "CASEWIRE_KAFKA__PARTITIONS": str(settings.partitions),
        "CASEWIRE_DATA_DIR": str(data_dir),
    }
    arguments = ["--config", str(config), "sink", name, "--rebuild"]
    return await to_thread.run_sync(run, arguments, env)


def query(data_dir: Path, text: str) -> Sequence[tuple[Any, ...]]:
    with closing(sqlite3.connect(data_dir / "sqlite" / "demo.db")) as connection:
        return connection.execute(text).fetchall()


def made(state: bytes, key: str, version: int) -> Made:
    return Made(state, key.encode(), [("casewire-version", b"%d" % version)])


@pytest.mark.kafka
async def test_tables_are_filled_from_the_latest_states(
    settings: KafkaSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cases = [case_state("demo", f"c{n}", version=n + 1) for n in range(5)]
    forms = [form_state("demo", "f1", 3, form={"visit": [{"drug": "a"}, {"drug": "b"}]})]
    await send(
        settings,
        "case-state",
        [made(each.to_json(), f"demo/{each.case_id}", each.version) for each in cases],
    )
    await send(
        settings,
        "form-state",
        [made(each.to_json(), f"demo/{each.id}", each.state_version) for each in forms],
    )
    assert await rebuilt(settings, tmp_path, "tables") == 0
    assert "tables: 6 written" in capfd.readouterr().out
    query(tmp_path, "DROP TABLE case_patient")
    assert await rebuilt(settings, tmp_path, "tables") == 0
    assert query(tmp_path, "SELECT count(*) FROM case_patient") == [(5,)]
    ((visits,),) = query(tmp_path, "SELECT name FROM cw_names WHERE kind = 'repeat'")
    assert query(tmp_path, f'SELECT count(*) FROM "{visits}"') == [(2,)]  # noqa: S608


@pytest.mark.kafka
async def test_a_sink_without_tables_is_not_rebuilt(
    settings: KafkaSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await rebuilt(settings, tmp_path, "hook") == 1
    assert "casewire replay" in capfd.readouterr().err
