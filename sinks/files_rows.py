"""Events as rows of Parquet, or as JSON lines, and how a file takes more of them (pure)."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, Final, TypeAlias

import orjson
import pyarrow as pa  # has no types
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.case import CaseEvent
from schemas.form import FormEvent
from schemas.values import Json
from sinks.base import Message

#: From what a file holds (None if there is none) and messages to what it is to hold; None if it
#: has them all.
Merge: TypeAlias = Callable[[bytes | None, Sequence[Message]], bytes | None]

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
_SEARCHED: Final = ["offset", "case_type", "xmlns", "server_date_modified", "received_on"]


def merged_parquet(held: bytes | None, messages: Sequence[Message]) -> bytes | None:
    """Return the file with these rows too, in the order of offsets; None if it has them all."""
    rows = [_row(message) for message in messages]
    new = {(row["offset"], row["event_id"]) for row in rows}
    schema = CASE_SCHEMA if messages[0].kind == "case" else FORM_SCHEMA
    table = _table(rows, schema)
    if held is not None:
        old = pq.read_table(BytesIO(held))
        keys = list(zip(*(old[name].to_pylist() for name in ("offset", "event_id")), strict=True))
        if new <= set(keys):
            return None
        kept = old.filter(pa.array([key not in new for key in keys]))
        table = pa.concat_tables([kept, table], promote_options="default")
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


def merged_lines(held: bytes | None, messages: Sequence[Message]) -> bytes | None:
    """Return the file with these lines too, in the order of offsets; None if it has them all."""
    lines: dict[tuple[int, str], bytes] = {}
    for line in (held or b"").splitlines():
        place = orjson.loads(line)
        lines[place["offset"], place["event_id"]] = line
    new = {}
    for message in messages:
        place = {**_place(message), "appended_at": message.timestamp}
        new[place["offset"], place["event_id"]] = orjson.dumps({**place, "event": message.value})
    if new.keys() <= lines.keys():
        return None
    lines |= new
    return b"".join(lines[key] + b"\n" for key in sorted(lines))


FORMATS: Final[Mapping[str, Merge]] = {"parquet": merged_parquet, "jsonl": merged_lines}


def _table(rows: Sequence[Mapping[str, Json]], schema: Any) -> Any:
    columns = zip(schema.names, schema.types, strict=True)  # a field's own name takes 1 µs a look
    return pa.table(
        [_column([row[name] for row in rows], kind) for name, kind in columns], schema=schema
    )


def _column(values: Sequence[Json], kind: Any) -> Any:
    """Return a column. Times come as canonical texts, or as milliseconds."""
    if kind == _TIME:
        return pc.cast(pa.array(values, pa.string()), kind)
    return pa.array(values, kind)


def _row(message: Message) -> dict[str, Json]:
    event = message.event
    if isinstance(event, CaseEvent):
        return _place(message) | _case(event)
    return _place(message) | _form(event)


def _place(message: Message) -> dict[str, Json]:
    headers = dict(message.headers)
    captured, time, origin = (
        headers.get("casewire-captured-id"),
        headers.get("ce_time"),
        headers.get("casewire-origin"),
    )
    return {
        "offset": message.offset,
        "partition": message.partition,
        "appended_at": message.timestamp,
        "event_id": headers.get("ce_id", b"").decode(errors="replace"),
        "captured_id": captured and captured.decode(errors="replace"),
        "captured_at": time and time.decode(errors="replace"),
        "origin": origin and origin.decode(errors="replace"),
    }


def _case(event: CaseEvent) -> dict[str, Json]:
    properties = event.properties
    return {
        "case_id": event.case_id,
        "case_type": event.case_type,
        "case_name": _text(properties.get("case_name")),
        "owner_id": _text(properties.get("owner_id")),
        "external_id": _text(properties.get("external_id")),
        "user_id": event.user_id,
        "closed": event.closed,
        "gone": event.gone,
        "date_modified": event.date_modified,
        "server_date_modified": event.server_date_modified,
        "date_closed": event.date_closed,
        "xform_ids": event.xform_ids,
        "properties": _json(properties),
        "indices": _json(event.indices),
        "attachments": _json(event.attachments),
        "other": _json(event.extra or None),
    }


def _form(event: FormEvent) -> dict[str, Json]:
    metadata = event.metadata or {}
    own = {"form", "metadata", "attachments", "domain", "id", *_FORM}
    other = {
        name: value
        for name in event.names()
        if name not in own and (value := getattr(event, name)) is not None
    }
    return {
        "form_id": event.id,
        "xmlns": event.xmlns,
        "name": _text(event.form.get("@name")),
        "app_id": event.app_id,
        "build_id": event.build_id,
        "user_id": _text(metadata.get("userID")),
        "username": _text(metadata.get("username")),
        "archived": event.archived,
        "received_on": event.received_on,
        "server_modified_on": event.server_modified_on,
        "edited_on": event.edited_on,
        "form": _json(event.form),
        "metadata": _json(event.metadata),
        "attachments": _json(event.attachments),
        "other": _json({**other, **event.extra} or None),
    }


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _json(value: Json) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
