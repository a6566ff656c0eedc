"""The sinks there are, by the `type` of `[sinks.NAME]`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.errors import ConfigError
from sinks.base import Sink
from sinks.postgres import PostgresSink
from sinks.settings import SinkSettings, SqlSettings
from sinks.sqlite import SqliteSink

_SQLITE: Final = "sqlite:///"
_POSTGRES: Final = ("postgresql://", "postgres://")


@dataclass(frozen=True, slots=True)
class SinkContext:
    """`name` is the sink's in the configuration, `data_dir` that of the machine."""

    name: str
    data_dir: Path


def sql_sink(settings: SqlSettings, context: SinkContext) -> Sink:
    """Raise ConfigError if the URL is missing from its file or is for no database we know."""
    key = f"sinks.{context.name}"
    url = _url(settings, key)
    if not url:
        return SqliteSink(context.data_dir / "sqlite", settings.on_delete)
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        return SqliteSink(Path(url.removeprefix(_SQLITE)), settings.on_delete)
    if url.startswith(_POSTGRES):
        try:
            return PostgresSink(url, settings.on_delete)
        except ConfigError as error:
            raise ConfigError(f"{key}.url: {error}") from None
    raise ConfigError(f"{key}.url is for no known database: write postgresql://… or {_SQLITE}…")


SINKS: Final[Mapping[str, Callable[[SqlSettings, SinkContext], Sink]]] = {
    "sql": sql_sink,
}


def make_sink(settings: SinkSettings, context: SinkContext) -> Sink:
    """Return the sink that the settings describe. Raises ConfigError."""
    return SINKS[str(settings.__struct_config__.tag)](settings, context)


def _url(settings: SqlSettings, key: str) -> str:
    if not settings.url_file:
        return settings.url
    if settings.url:
        raise ConfigError(f"{key} has both url and url_file: remove one")
    try:
        return Path(settings.url_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"{key}.url_file cannot be read ({error.strerror}): "
            "write the URL into it, readable for Casewire's user"
        ) from error
