import sys
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from sinks.files_settings import FilesSettings
from sinks.registry import make_sink
from sinks.sql_settings import SqlSettings
from tests.contract.rigs import case_state, opened

pytestmark = pytest.mark.anyio


async def test_without_a_url_it_is_sqlite_in_the_data_directory(tmp_path: Path) -> None:
    async with opened(make_sink("main", SqlSettings(), tmp_path)) as sink:
        await sink.write([case_state("demo")])
    assert (tmp_path / "sqlite" / "demo.db").exists()


async def test_a_sqlite_url_names_the_folder(tmp_path: Path) -> None:
    settings = SqlSettings(url=f"sqlite:///{tmp_path}/elsewhere")
    async with opened(make_sink("main", settings, tmp_path)) as sink:
        await sink.write([case_state("demo")])
    assert (tmp_path / "elsewhere" / "demo.db").exists()


@pytest.mark.parametrize("url", ["mysql://u:secret@h/x", "sqlite:///"])
def test_a_url_of_no_known_database_is_an_error_that_does_not_tell_it(url: str) -> None:
    problems = "".join(SqlSettings(url=url).problems())
    assert problems.startswith("url: is for no known database")
    assert "secret" not in problems


def test_a_wrong_url_of_postgresql_is_an_error_that_does_not_tell_it(tmp_path: Path) -> None:
    settings = SqlSettings(url="postgresql://u:secret@h:port?x=1&y")
    with pytest.raises(ConfigError) as error:
        make_sink("main", settings, tmp_path)
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None or "secret" not in str(error.value.__cause__)


def test_a_type_whose_packages_are_missing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sinks.files_sink", "sinks.files_rows", "sinks.files_store"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs the package pyarrow: install casewire\[files\]"):
        make_sink("lake", FilesSettings(), tmp_path)
