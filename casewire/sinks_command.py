"""`casewire sinks`: the types of sinks there are, and what each can be told."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, get_args, get_origin

import click
import msgspec
import orjson

from casewire.tables import nearest
from schemas.errors import ConfigError
from schemas.values import Json
from sinks.registry import SETTINGS
from sinks.settings import SinkTable

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")  # TOML 1.0, "Keys"
_TYPE_NAMES: Final = {str: "text", int: "number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a sink's table. `default` is None if the key must be given."""

    name: str
    type: str
    default: Json
    description: str
    example: Json


@click.group(epilog="Example: casewire sinks describe sql")
def sinks() -> None:
    """Say which types of sinks there are, and what each can be told."""


@sinks.command(name="list", epilog="Example: casewire sinks list")
@click.option("--json", "as_json", is_flag=True, help="Print the types as JSON.")
def list_types(*, as_json: bool) -> None:
    """List the types of sinks, each with a line on what it does."""
    lines = {name: summary(kind) for name, kind in SETTINGS.items()}
    if as_json:
        click.echo(orjson.dumps([{"type": name, "summary": line} for name, line in lines.items()]))
        return
    for name, line in lines.items():
        click.echo(f"{name:8} {line}")


@sinks.command(epilog="Example: casewire sinks describe sql")
@click.argument("type_", metavar="TYPE")
@click.option("--json", "as_json", is_flag=True, help="Print the keys as JSON.")
def describe(type_: str, *, as_json: bool) -> None:
    """Print the keys of [sinks.NAME] for a TYPE: what each means, its default, an example."""
    if type_ not in SETTINGS:
        raise ConfigError(
            f"there is no type of sinks {type_!r}; did you mean {nearest(type_, [*SETTINGS])}?"
        )
    if as_json:
        click.echo(orjson.dumps([asdict(key) for key in keys(SETTINGS[type_])]))
        return
    click.echo(described(type_), nl=False)


def summary(kind: type[SinkTable]) -> str:
    """Return the first sentence of what is said of a type."""
    return (kind.__doc__ or "").strip().partition("\n")[0]


def keys(kind: type[SinkTable]) -> Sequence[Key]:
    """Return the keys of a type, its own ones first."""
    common = {field.name for field in msgspec.structs.fields(SinkTable)}
    fields = sorted(msgspec.structs.fields(kind), key=lambda field: field.name in common)
    return [_key(field) for field in fields]


def described(type_: str) -> str:
    """Return the Markdown on a type: its table of keys, and an example that can be copied."""
    kind = SETTINGS[type_]
    rows = [
        f"| `{key.name}` | {key.type} | {_default(key)} | {key.description} |" for key in keys(kind)
    ]
    own = [key for key in keys(kind) if key.name not in SinkTable.__struct_fields__]
    example = [f"{key.name} = {_toml(key.example)}" for key in own if not _alternative(key, own)]
    lines = [
        f"## `{type_}`",
        "",
        summary(kind),
        "",
        "| key | type | default | meaning |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        "```toml",
        "[sinks.NAME]",
        f'type = "{type_}"',
        *example,
        "```",
        "",
    ]
    return "\n".join(lines)


def _key(field: msgspec.structs.FieldInfo) -> Key:
    inner, *metas = get_args(field.type)
    meta = next(meta for meta in metas if isinstance(meta, msgspec.Meta) and meta.description)
    default: Json = None if field.required else field.default
    return Key(
        name=field.name,
        type=_type_name(inner),
        default=dict(default) if isinstance(default, Mapping) else default,
        description=meta.description or "",
        example=(meta.examples or [None])[0],
    )


def _type_name(kind: object) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is None:
        return _TYPE_NAMES.get(kind, str(kind)) if isinstance(kind, type) else str(kind)
    if all(isinstance(argument, str) for argument in arguments):
        return " or ".join(f"`{argument}`" for argument in arguments)
    if len(arguments) == 1:
        return f"list of {_type_name(arguments[0])}"
    if isinstance(arguments[-1], msgspec.Meta):
        return _type_name(arguments[0])
    return "table"


def _default(key: Key) -> str:
    if key.default is None:
        return "must be given"
    return f"`{_toml(key.default)}`"


def _alternative(key: Key, own: Sequence[Key]) -> bool:
    """Whether the key only says where another one is to be found."""
    names = {other.name for other in own}
    return key.name.endswith("_file") and key.name.removesuffix("_file") in names


def _toml(value: Json) -> str:
    """Return a value as TOML writes it inline."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{_toml_key(key)} = {_toml(inner)}" for key, inner in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return orjson.dumps(value).decode()


def _toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else orjson.dumps(key).decode()
