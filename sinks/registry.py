"""The sinks there are, by the `type` of `[sinks.NAME]`."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Final

from schemas.errors import ConfigError
from sinks.base import Sink
from sinks.files_settings import FilesSettings
from sinks.http_settings import HttpSettings
from sinks.kafka_settings import KafkaSinkSettings
from sinks.settings import SinkTable
from sinks.sql_settings import SqlSettings

SETTINGS: Final[Mapping[str, type[SinkTable]]] = {
    "sql": SqlSettings,
    "http": HttpSettings,
    "kafka": KafkaSinkSettings,
    "files": FilesSettings,
}

#: The modules that make them. Imported when needed: every command reads the configuration, and a
#: target's library is large.
_MODULES: Final = {
    "sql": "sinks.sql",
    "http": "sinks.http_sink",
    "kafka": "sinks.kafka_sink",
    "files": "sinks.files_sink",
}


def type_of(settings: SinkTable) -> str:
    return str(settings.__struct_config__.tag)


def make_sink(name: str, settings: SinkTable, data_dir: Path, **options: bool) -> Sink:
    """Return the sink `name` that the settings describe. Raises ConfigError.

    `options` are those of the type's own `make`.
    """
    try:
        sink: Sink = import_module(_MODULES[type_of(settings)]).make(settings, data_dir, **options)
    except ModuleNotFoundError as error:
        kind = type_of(settings)
        raise ConfigError(
            f'[sinks.{name}] type = "{kind}" needs the package {error.name}: '
            f"install casewire[{kind}], or take another type"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"[sinks.{name}] {error}") from None
    return sink
