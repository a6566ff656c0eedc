import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from schemas.errors import TargetError, TransientError
from sinks.sqlite import SqliteSink
from tests.contract.rigs import SqliteRig, case_state, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
def rig(tmp_path: Path) -> SqliteRig:
    return SqliteRig(tmp_path / "sqlite")


async def test_a_write_that_is_reported_is_on_the_disk(rig: SqliteRig) -> None:
    async with opened(rig.sink()) as sink:
        await sink.write([case_state("d")])
        sqlite = sink.sink
        assert isinstance(sqlite, SqliteSink)
        full = 2
        read = sqlite._connections["d"].execute
        pragmas = await sqlite._in_thread(
            lambda: [
                read(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")
            ]
        )
        assert pragmas == [full, "wal"]


async def test_a_file_that_is_being_written_by_another_is_tried_again(rig: SqliteRig) -> None:
    async with opened(SqliteSink(rig.folder, busy_seconds=0.01)) as sink:
        await sink.write([case_state("d")])
        with closing(sqlite3.connect(rig.folder / "d.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(TransientError, match=r"d\.db"):
                await sink.write([case_state("d", version=2)])
        assert await sink.write([case_state("d", version=2)]) == ["written"]


async def test_a_file_that_was_removed_is_made_anew(rig: SqliteRig) -> None:
    async with opened(rig.sink()) as sink:
        await sink.write([case_state("d")])
        (rig.folder / "d.db").unlink()
        await sink.write([case_state("d", "c2")])
    assert rig.rows("d").keys() == {"c2"}


async def test_a_file_that_is_no_database_is_for_the_operator(rig: SqliteRig) -> None:
    async with opened(rig.sink()) as sink:
        (rig.folder / "d.db").write_text("no database " * 100)
        with pytest.raises(TargetError, match=r"d\.db"):
            await sink.write([case_state("d")])
        (rig.folder / "d.db").unlink()
        assert await sink.write([case_state("d")]) == ["written"]


async def test_a_folder_that_cannot_be_made_is_for_the_operator(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sink = SqliteSink(tmp_path / "file" / "folder")
    with pytest.raises(TargetError, match="folder"):
        await sink.open()
    await sink.close()


async def test_a_batch_that_fails_leaves_nothing(rig: SqliteRig) -> None:
    async with opened(rig.sink()) as sink:
        await sink.write([case_state("d")])
        with closing(sqlite3.connect(rig.folder / "d.db")) as other:
            other.execute("DROP TABLE case_patient")
        with pytest.raises(TargetError):
            await sink.write([case_state("d", version=2)])
        assert rig.guards("d") == {"c1": ("patient", 1, False)}


async def test_nul_is_text_like_any_other(rig: SqliteRig) -> None:
    async with opened(rig.sink()) as sink:
        await sink.write([case_state("d", properties={"a\0": "b\0c"})])
    assert rig.rows("d")["c1"].properties["a\0"] == "b\0c"
