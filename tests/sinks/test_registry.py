from pathlib import Path

import pytest

from schemas.errors import ConfigError
from sinks.postgres import PostgresSink
from sinks.registry import SinkContext, make_sink
from sinks.settings import SqlSettings
from sinks.sqlite import SqliteSink
from tests.contract.rigs import case_state, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
def context(tmp_path: Path) -> SinkContext:
    return SinkContext("main", tmp_path)


async def test_without_a_url_it_is_sqlite_in_the_data_directory(context: SinkContext) -> None:
    async with opened(make_sink(SqlSettings(), context)) as sink:
        await sink.write([case_state("demo")])
    assert (context.data_dir / "sqlite" / "demo.db").exists()


async def test_a_sqlite_url_names_the_folder(context: SinkContext, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/elsewhere"
    async with opened(make_sink(SqlSettings(url=url), context)) as sink:
        await sink.write([case_state("demo")])
    assert (tmp_path / "elsewhere" / "demo.db").exists()


def test_the_url_can_be_in_a_file(context: SinkContext, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://u:p@127.0.0.1/x\n")
    sink = make_sink(SqlSettings(url_file=str(tmp_path / "url")), context)
    assert isinstance(sink, PostgresSink)
    assert isinstance(make_sink(SqlSettings(url="sqlite:///x"), context), SqliteSink)


@pytest.mark.parametrize(
    "settings",
    [
        SqlSettings(url="mysql://u:secret@h/x"),
        SqlSettings(url="sqlite:///"),
        SqlSettings(url="postgresql://u:secret@h:port?x=1&y"),
        SqlSettings(url="sqlite:///x", url_file="/dev/null"),
        SqlSettings(url_file="/nowhere/url"),
    ],
)
def test_a_wrong_url_is_an_error_that_does_not_tell_it(
    context: SinkContext, settings: SqlSettings
) -> None:
    with pytest.raises(ConfigError) as error:
        make_sink(settings, context)
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None or "secret" not in str(error.value.__cause__)
