"""The connector `sql`: PostgreSQL, or SQLite as the embedded default."""

from pathlib import Path

from sinks.base import Sink
from sinks.postgres import PostgresSink
from sinks.sql_settings import SQLITE, SqlSettings
from sinks.sqlite import SqliteSink


def make(settings: SqlSettings, data_dir: Path) -> Sink:
    """Return the sink. Raises ConfigError if the URL cannot be one of PostgreSQL's."""
    if not settings.url:
        return SqliteSink(data_dir / "sqlite", settings.on_delete)
    if settings.url.startswith(SQLITE):
        return SqliteSink(Path(settings.url.removeprefix(SQLITE)), settings.on_delete)
    return PostgresSink(settings.url, settings.on_delete)
