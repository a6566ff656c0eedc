"""The connector `sql`: PostgreSQL, or SQLite as the embedded default."""

from pathlib import Path

from sinks.base import Sink
from sinks.postgres import PostgresSink
from sinks.sql_settings import SQLITE, SqlSettings
from sinks.sqlite import SqliteSink


def make(settings: SqlSettings, data_dir: Path, *, restore: bool = False) -> Sink:
    """Return the sink. Raises ConfigError if the URL cannot be one of PostgreSQL's.

    `restore`: what it made once, and somebody has dropped, it makes again, empty.
    """
    if not settings.url:
        return SqliteSink(data_dir / "sqlite", settings.on_delete, restore=restore)
    if settings.url.startswith(SQLITE):
        folder = Path(settings.url.removeprefix(SQLITE))
        return SqliteSink(folder, settings.on_delete, restore=restore)
    return PostgresSink(settings.url, settings.on_delete, restore=restore)
