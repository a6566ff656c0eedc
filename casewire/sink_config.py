"""`[sinks.NAME]` of the configuration, whatever their type."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from casewire.tables import (
    NAME_PATTERN,
    FromEnvironment,
    key_name,
    keys_of,
    nearest,
    read_named,
    read_secret,
)
from schemas.times import from_rfc3339
from sinks.match import Choice, problems
from sinks.registry import SETTINGS
from sinks.settings import ExclusionSettings, SinkTable
from sinks.sql_settings import SqlSettings

DEFAULT_SINK: Final = "sqlite"
_FILE: Final = "_file"


def read_sinks(
    raw: Mapping[str, object] | None, folder: Path, errors: list[str]
) -> Mapping[str, SinkTable]:
    """Return the sinks by name, secrets read; SQLite alone if the configuration has no `[sinks]`.

    A key `x_file` names a file that holds `x`, relative to `folder`.
    """
    if raw is None:
        return {DEFAULT_SINK: SqlSettings()}
    sinks: dict[str, SinkTable] = {}
    for name, table in raw.items():
        kind = _type(name, table if isinstance(table, dict) else {}, errors)
        if kind is not None:
            only = {"sinks": {name: table}}
            for settings in read_named(kind, only, "sinks", NAME_PATTERN, errors).values():
                sinks[name] = _with_secrets(name, settings, folder, errors)
    return sinks


def choice_of(settings: SinkTable, exclusions: Mapping[str, ExclusionSettings]) -> Choice:
    """Return which events a sink takes. Its exclusions must be there."""
    excluded = {name: exclusions[name].match for name in settings.exclude}
    return Choice(settings.match, excluded, from_rfc3339(settings.since) or "")


def sink_problems(
    sinks: Mapping[str, SinkTable], exclusions: Mapping[str, ExclusionSettings]
) -> Iterator[str]:
    """Yield what is wrong with sinks and exclusions whose keys are each of the right kind."""
    for name, exclusion in exclusions.items():
        yield from (f"[exclusions.{name}] {text}" for text in problems(exclusion.match))
    for name, settings in sinks.items():
        yield from (f"[sinks.{name}] {text}" for text in settings.problems())
        for excluded in settings.exclude:
            if excluded not in exclusions:
                place = key_name(("sinks", name, "exclude"))
                known = ", ".join(exclusions) or "none yet"
                yield f"{place}: there is no [exclusions.{excluded}]; add it (there are: {known})"


def sources(sinks: Mapping[str, SinkTable]) -> Mapping[str, Sequence[str]]:
    """Return the topics (short names) that each sink reads."""
    return {name: settings.sources for name, settings in sinks.items()}


def no_such_sink(sinks: Mapping[str, SinkTable], name: str) -> str:
    """Return what to tell who named a sink that is none."""
    if not sinks:
        return f"there is no sink {name!r}; add a table [sinks.{name}]"
    return f"there is no sink {name!r}; did you mean {nearest(name, list(sinks))}?"


def _type(name: str, raw: Mapping[str, object], errors: list[str]) -> type[SinkTable] | None:
    value = raw.get("type", "")
    given = value.text if isinstance(value, FromEnvironment) else value
    kind = SETTINGS.get(given) if isinstance(given, str) else None
    if kind is None:
        known = ", ".join(f'"{each}"' for each in SETTINGS)
        errors.append(f"{key_name(('sinks', name, 'type'))}: write one of {known}")
    return kind


def _with_secrets(name: str, settings: SinkTable, folder: Path, errors: list[str]) -> SinkTable:
    """Return the settings with what their `…_file` keys name read into the keys themselves."""
    read: dict[str, str] = {}
    for file_key in keys_of(type(settings)):
        key = file_key.removesuffix(_FILE)
        file = getattr(settings, file_key) if file_key.endswith(_FILE) else ""
        if not file:
            continue
        if getattr(settings, key):
            place = key_name(("sinks", name, key))
            errors.append(f"{place}: stands beside {file_key}; remove one of the two")
        read |= {
            key: read_secret(folder / file, ("sinks", name, file_key), errors),
            file_key: "",
        }
    return msgspec.structs.replace(settings, **read)
