"""Turns raw TOML tables and environment variables into settings, naming every wrong key."""

import collections.abc
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, TypeAlias, TypeVar, get_args, get_origin

import msgspec

from schemas.settings import Table

Path: TypeAlias = tuple[str, ...]
TableT = TypeVar("TableT", bound=Table)

NAME_PATTERN: Final = r"[a-z0-9][a-z0-9-]*"
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class FromEnvironment:
    """A value that an environment variable gives: text, whatever its type is to be."""

    variable: str
    text: str


def key_name(path: Path) -> str:
    """Return a key's path as TOML writes it: `[sinks.warehouse] url`."""
    *table, key = path
    shown = ".".join(part if _BARE.fullmatch(part) else f'"{part}"' for part in table)
    return f"[{shown}] {key}" if table else key


def keys_of(kind: type[Table]) -> list[str]:
    """Return the keys that a table of this kind may have."""
    tag = kind.__struct_config__.tag_field
    fields = [field.name for field in msgspec.structs.fields(kind)]
    return fields if tag is None else [tag, *fields]


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the known name that is most like a wrong one."""
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def read_table(
    kind: type[TableT], raw: Mapping[str, object], path: Path, errors: list[str]
) -> TableT | None:
    """Return the settings of a table; None, and a text in `errors` for each wrong key, if wrong."""
    before = len(errors)
    known = keys_of(kind)
    for key, value in raw.items():
        if key not in known:
            errors.append(_unknown((*path, key), value, known))
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.name not in raw:
            if field.required:
                errors.append(f"{key_name((*path, field.name))}: missing; add it")
            continue
        value = raw[field.name]
        try:
            values[field.name] = _convert(value, field.type)
        except msgspec.ValidationError as error:
            errors.append(_invalid((*path, field.name), value, error))
    return kind(**values) if len(errors) == before else None


def read_named(
    kind: type[TableT], raw: Mapping[str, object], table: str, pattern: str, errors: list[str]
) -> dict[str, TableT]:
    """Return the settings of each table in `raw[table]` by name; one that is wrong is left out."""
    found: dict[str, TableT] = {}
    tables = raw.get(table)
    for name, value in tables.items() if isinstance(tables, dict) else ():
        place = key_name((table, name, "")).rstrip()
        if not re.fullmatch(pattern, name):
            errors.append(f"{place}: the name must match {pattern}; give it another one")
        elif not isinstance(value, dict):
            errors.append(f"{place}: is a table; write {place}")
        elif (settings := read_table(kind, value, (table, name), errors)) is not None:
            found[name] = settings
    return found


def read_secret(file: FilePath, path: Path, errors: list[str]) -> str:
    """Return what a file holds, without white space around it; empty, and an error, if nothing."""
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        errors.append(
            f"{key_name(path)}: {file} cannot be read ({reason}); write the secret into that file"
        )
        return ""
    if not secret:
        errors.append(f"{key_name(path)}: {file} is empty; write the secret into it")
    return secret


def _convert(value: object, wanted: Any) -> Any:
    if not isinstance(value, FromEnvironment):
        return msgspec.convert(value, wanted)
    if _origin_of(wanted) is collections.abc.Sequence:
        parts = [part.strip() for part in value.text.split(",")]
        return msgspec.convert([part for part in parts if part], wanted)
    if _origin_of(wanted) is collections.abc.Mapping:
        return msgspec.json.decode(value.text, type=wanted)
    return msgspec.convert(value.text, wanted, strict=False)


def _origin_of(wanted: Any) -> Any:
    inner = get_args(wanted)[0] if get_origin(wanted) is Annotated else wanted
    return get_origin(inner)


def _unknown(path: Path, value: object, known: Sequence[str]) -> str:
    remedy = f"did you mean {nearest(path[-1], known)}?" if known else "this table has no keys"
    return f"{key_name(path)}: unknown key; {remedy}{_origin(value)}"


def _invalid(path: Path, value: object, error: Exception) -> str:
    expected = str(error).partition(" - at ")[0]
    return f"{key_name(path)}: {expected[:1].lower()}{expected[1:]}; correct it{_origin(value)}"


def _origin(value: object) -> str:
    return f" (it is set by {value.variable})" if isinstance(value, FromEnvironment) else ""
