"""The three sinks, each with a way to read back what it wrote in one common form."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import orjson
import psycopg

from schemas.case import CaseState, Index
from schemas.times import from_datetime
from schemas.values import Json
from sinks.base import Message, Result, Sink
from sinks.catalog import Catalog, Name
from sinks.guard import OnDelete
from sinks.memory import MemorySink
from sinks.names import quoted, shortened
from sinks.postgres import PostgresSink
from sinks.rows import OWN_COLUMNS
from sinks.sqlite import SqliteSink

Query = Callable[[str], Sequence[tuple[Any, ...]]]


@dataclass(frozen=True)
class Stored:
    """A row of a case type's table. `properties` holds those that are not null."""

    case_type: str
    own: Mapping[str, Json]
    properties: Mapping[str, str]


class CaseSink:
    """A sink that is given case states as they are."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.open = sink.open
        self.close = sink.close

    async def write(self, states: Sequence[CaseState]) -> Sequence[Result]:
        return await self.sink.write(messages(*states))


class Rig(Protocol):
    def sink(self, on_delete: OnDelete = "delete") -> CaseSink:
        """Return another worker's sink for the same target."""

    def rows(self, domain: str) -> Mapping[str, Stored]:
        """Return all rows of all case types' tables, by case id."""

    def guards(self, domain: str) -> Mapping[str, tuple[str, int, bool]]:
        """Return type, version and deleted by case id."""


class MemoryRig:
    def __init__(self) -> None:
        self.store = MemorySink()

    def sink(self, on_delete: OnDelete = "delete") -> CaseSink:
        sink = MemorySink(on_delete)
        sink.cases, sink.rows = self.store.cases, self.store.rows
        return CaseSink(sink)

    def rows(self, domain: str) -> Mapping[str, Stored]:
        return {
            row.case_id: Stored(row.case_type, own_values(row.own), row.properties)
            for (of, _), row in self.store.rows.items()
            if of == domain
        }

    def guards(self, domain: str) -> Mapping[str, tuple[str, int, bool]]:
        return {
            case_id: (held.case_type, held.version, held.deleted)
            for (of, case_id), held in self.store.cases.items()
            if of == domain
        }


class SqliteRig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sink(self, on_delete: OnDelete = "delete") -> CaseSink:
        return CaseSink(SqliteSink(self.folder, on_delete))

    def query(self, domain: str, text: str) -> Sequence[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / f"{shortened(domain)}.db")) as connection:
            return connection.execute(text).fetchall()

    def rows(self, domain: str) -> Mapping[str, Stored]:
        return read_rows(lambda text: self.query(domain, text))

    def guards(self, domain: str) -> Mapping[str, tuple[str, int, bool]]:
        return read_guards(lambda text: self.query(domain, text))


class PostgresRig:
    def __init__(self, url: str) -> None:
        self.url = url

    def sink(self, on_delete: OnDelete = "delete") -> CaseSink:
        return CaseSink(PostgresSink(self.url, on_delete))

    def query(self, domain: str, text: str) -> Sequence[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            connection.execute(f"SET search_path TO {quoted(shortened(domain))}".encode())
            return connection.execute(text.encode()).fetchall()

    def rows(self, domain: str) -> Mapping[str, Stored]:
        return read_rows(lambda text: self.query(domain, text))

    def guards(self, domain: str) -> Mapping[str, tuple[str, int, bool]]:
        return read_guards(lambda text: self.query(domain, text))


def read_rows(query: Query) -> Mapping[str, Stored]:
    names = [Name(*row) for row in query("SELECT table_name, source, name FROM cw_names")]
    found: dict[str, Stored] = {}
    for case_type, table in Catalog.of(names).tables.items():
        columns = [*OWN_COLUMNS, *table.columns.values()]
        selected = ", ".join(map(quoted, columns))
        for row in query(f"SELECT {selected} FROM {quoted(table.name)}"):  # noqa: S608
            by_column = dict(zip(columns, row, strict=True))
            overflow = from_json(by_column.pop("cw_overflow")) or {}
            own = own_values(by_column)
            properties = {
                source: by_column[column]
                for source, column in table.columns.items()
                if by_column[column] is not None
            }
            case_id = by_column["cw_case_id"]
            assert case_id not in found, "a case has a row in two tables"
            found[case_id] = Stored(case_type, own, properties | overflow)
    return found


def read_guards(query: Query) -> Mapping[str, tuple[str, int, bool]]:
    rows = query("SELECT case_id, case_type, version, deleted FROM cases")
    return {case_id: (of, version, bool(deleted)) for case_id, of, version, deleted in rows}


def own_values(by_column: Mapping[str, Json]) -> Mapping[str, Json]:
    own = {column: by_column.get(column) for column in OWN_COLUMNS if column != "cw_overflow"}
    for column, kind in OWN_COLUMNS.items():
        value = own.get(column)
        if kind == "flag" and value is not None:
            own[column] = bool(value)
        if kind == "json":
            own[column] = from_json(value)
        if isinstance(value, datetime):
            own[column] = from_datetime(value)
    return {column: value for column, value in own.items() if value is not None}


def from_json(value: Json) -> Json:
    return orjson.loads(value) if isinstance(value, str) else value


@asynccontextmanager
async def opened(sink: Sink | CaseSink) -> AsyncIterator[CaseSink]:
    await sink.open()
    try:
        yield sink if isinstance(sink, CaseSink) else CaseSink(sink)
    finally:
        await sink.close()


PARENT: Mapping[str, Index] = {
    "parent": {"case_type": "household", "case_id": "h1", "relationship": "child"}
}


def case_state(domain: str, case_id: str = "c1", version: int = 1, **given: Json) -> CaseState:
    """Return a state; `properties` are added to a name, a type and an owner."""
    properties = {"case_name": "Ada Example", "case_type": "patient", "owner_id": "o1"}
    values: dict[str, Json] = {
        "user_id": "u1",
        "closed": False,
        "xform_ids": ["f1"],
        "date_closed": None,
        "date_modified": "2026-11-22T09:59:00.000000Z",
        "server_date_modified": "2026-11-22T10:00:00.000001Z",
        "indices": {},
        "attachments": {},
        "source": "snapshot",
        "captured_id": "0",
        "deleted": False,
        "doubtful": False,
        **given,
        "properties": properties | given.get("properties", {}),
    }
    return CaseState(domain=domain, case_id=case_id, version=version, **values)


def messages(*states: CaseState) -> Sequence[Message]:
    """Return the messages by which states come to a sink."""
    return [
        Message(
            source="case-state",
            partition=0,
            offset=offset,
            timestamp=0,
            key=f"{state.domain}/{state.case_id}",
            headers=[],
            value={},
            event=state,
            version=state.version,
        )
        for offset, state in enumerate(states)
    ]
