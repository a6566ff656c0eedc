"""Events as rows of Parquet, or as JSON lines, and how a file takes more of them (pure)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import orjson
import pyarrow as pa  # has no types
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.case import CaseEvent
from schemas.form import FormEvent
from schemas.values import Json
from sinks.base import Message


class Row(msgspec.Struct, frozen=True):
    """What a file is to hold of an event: its columns, or its line."""

    kind: Literal["case", "form"]
    offset: int
    event_id: str
    content: Any


@dataclass(frozen=True, slots=True)
class Format:
    """How a format says an event, and how a file of it takes more of them.

    `merged` makes of what a file holds (None if there is none) and of rows what it is to hold, in
    the order of offsets; None if it has them all.
    """

    row: Callable[[Message], Row]
    merged: Callable[[bytes | None, Sequence[Row]], bytes | None]


_TIME: Final = pa.timestamp("us", tz="UTC")
_PLACE: Final = {
    "offset": pa.int64(),
    "partition": pa.int32(),
    "appended_at": pa.timestamp("ms", tz="UTC"),
    "event_id": pa.string(),
    "captured_id": pa.string(),
    "captured_at": _TIME,
    "origin": pa.string(),
}
_JSON: Final = pa.string()
_CASE: Final = {
    "case_id": pa.string(),
    "case_type": pa.string(),
    "case_name": pa.string(),
    "owner_id": pa.string(),
    "external_id": pa.string(),
    "user_id": pa.string(),
    "closed": pa.bool_(),
    "gone": pa.bool_(),
    "date_modified": _TIME,
    "server_date_modified": _TIME,
    "date_closed": _TIME,
    "xform_ids": pa.list_(pa.string()),
    "properties": _JSON,
    "indices": _JSON,
    "attachments": _JSON,
    "other": _JSON,
}
_FORM: Final = {
    "form_id": pa.string(),
    "xmlns": pa.string(),
    "name": pa.string(),
    "app_id": pa.string(),
    "build_id": pa.string(),
    "user_id": pa.string(),
    "username": pa.string(),
    "archived": pa.bool_(),
    "received_on": _TIME,
    "server_modified_on": _TIME,
    "edited_on": _TIME,
    "form": _JSON,
    "metadata": _JSON,
    "attachments": _JSON,
    "other": _JSON,
}
CASE_SCHEMA: Final = pa.schema(_PLACE | _CASE)
FORM_SCHEMA: Final = pa.schema(_PLACE | _FORM)
#: What a form has besides its own columns is in `other`.
_OTHER: Final = [name for name in FormEvent.names() if name not in {"domain", "id", *_FORM}]
#: The headers that columns are made of.
_TOLD: Final = frozenset({"ce_id", "casewire-captured-id", "ce_time", "casewire-origin"})
_SEARCHED: Final = ["offset", "case_type", "xmlns", "server_date_modified", "received_on"]


def _parquet_row(message: Message) -> Row:
    event, place = message.event, _place(message)
    columns = _case(event) if isinstance(event, CaseEvent) else _form(event)
    return Row(message.kind, message.offset, place[3], place + columns)


def _merged_parquet(held: bytes | None, rows: Sequence[Row]) -> bytes | None:
    schema = CASE_SCHEMA if rows[0].kind == "case" else FORM_SCHEMA
    table = _table(rows, schema)
    if held is not None:
        new = {(row.offset, row.event_id) for row in rows}
        old = pq.read_table(pa.BufferReader(held))
        keys = list(zip(*(old[name].to_pylist() for name in ("offset", "event_id")), strict=True))
        if new <= set(keys):
            return None
        if not new.isdisjoint(keys):
            old = old.filter(pa.array([key not in new for key in keys]))
        table = pa.concat_tables([old, table], promote_options="default")
    target = pa.BufferOutputStream()
    pq.write_table(
        table.sort_by([("offset", "ascending"), ("event_id", "ascending")]),
        target,
        compression="zstd",
        compression_level=1,
        use_dictionary=False,
        write_statistics=[name for name in _SEARCHED if name in schema.names],
    )
    return bytes(target.getvalue())


def _line(message: Message) -> Row:
    place = _place(message)
    told = dict(zip(_PLACE, place, strict=True))
    line = orjson.dumps({**told, "event": message.value})
    return Row(message.kind, message.offset, place[3], line)


def _merged_lines(held: bytes | None, rows: Sequence[Row]) -> bytes | None:
    lines: dict[tuple[int, str], bytes] = {}
    for line in (held or b"").splitlines():
        place = orjson.loads(line)
        lines[place["offset"], place["event_id"]] = line
    new = {(row.offset, row.event_id): row.content for row in rows}
    if new.keys() <= lines.keys():
        return None
    lines |= new
    return b"".join(lines[key] + b"\n" for key in sorted(lines))


FORMATS: Final[Mapping[str, Format]] = {
    "parquet": Format(_parquet_row, _merged_parquet),
    "jsonl": Format(_line, _merged_lines),
}


def _table(rows: Sequence[Row], schema: Any) -> Any:
    columns = zip(*(row.content for row in rows), strict=True)
    return pa.table(
        [_column(values, kind) for values, kind in zip(columns, schema.types, strict=True)],
        schema=schema,
    )


def _column(values: Sequence[Json], kind: Any) -> Any:
    """Return a column. Times come as canonical texts, or as milliseconds."""
    if kind == _TIME:
        return pc.cast(pa.array(values, pa.string()), kind)
    return pa.array(values, kind)


def _place(message: Message) -> tuple[int, int, int, str, str | None, str | None, str | None]:
    """Return the columns of all events, in the order of `_PLACE`."""
    told: dict[str, str] = {}
    for name, value in message.headers:
        if name in _TOLD:
            told[name] = value.decode(errors="replace")
            if len(told) == len(_TOLD):  # what is behind need not be read
                break
    return (
        message.offset,
        message.partition,
        message.timestamp,
        told.get("ce_id", ""),
        told.get("casewire-captured-id"),
        told.get("ce_time"),
        told.get("casewire-origin"),
    )


def _case(event: CaseEvent) -> tuple[Json, ...]:
    """Return the columns of a case, in the order of `_CASE`."""
    properties = event.properties
    return (
        event.case_id,
        event.case_type,
        _text(properties.get("case_name")),
        _text(properties.get("owner_id")),
        _text(properties.get("external_id")),
        event.user_id,
        event.closed,
        event.gone,
        event.date_modified,
        event.server_date_modified,
        event.date_closed,
        event.xform_ids,
        _json(properties),
        _json(event.indices),
        _json(event.attachments),
        _json(event.extra or None),
    )


def _form(event: FormEvent) -> tuple[Json, ...]:
    """Return the columns of a form, in the order of `_FORM`."""
    metadata = event.metadata or {}
    other = {name: value for name in _OTHER if (value := getattr(event, name)) is not None}
    return (
        event.id,
        event.xmlns,
        _text(event.form.get("@name")),
        event.app_id,
        event.build_id,
        _text(metadata.get("userID")),
        _text(metadata.get("username")),
        event.archived,
        event.received_on,
        event.server_modified_on,
        event.edited_on,
        _json(event.form),
        _json(event.metadata),
        _json(event.attachments),
        _json({**other, **event.extra} or None),
    )


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _json(value: Json) -> str | None:
    """Return a value's JSON. As text: orjson's own bytes keep a kilobyte each of the heap."""
    return None if value is None else orjson.dumps(value).decode()
