"""The three sinks, each with a way to read back what it wrote in one common form."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import orjson
import psycopg

from schemas.case import CaseState, Index
from schemas.form import FormState
from schemas.times import from_datetime
from schemas.values import Json
from sinks.answers import Place
from sinks.base import Message, Result, Sink
from sinks.catalog import Catalog, Name, Table
from sinks.guard import OnDelete
from sinks.layout import CASES, FORMS, Layout
from sinks.memory import MemorySink
from sinks.names import quoted, shortened
from sinks.postgres import PostgresSink
from sinks.rows import Line
from sinks.sqlite import SqliteSink

State: TypeAlias = CaseState | FormState
Query = Callable[[str], Sequence[tuple[Any, ...]]]


@dataclass(frozen=True)
class Stored:
    """A row of a case type's table. `properties` holds those that are not null."""

    case_type: str
    own: Mapping[str, Json]
    properties: Mapping[str, str]


@dataclass(frozen=True)
class StoredForm:
    """A row of a form's table. `repeats` holds their rows' texts by place, by path."""

    xmlns: str
    own: Mapping[str, Json]
    texts: Mapping[str, str]
    repeats: Mapping[str, Mapping[Place, Mapping[str, str]]]


class StateSink:
    """A sink that is given states as they are."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.open = sink.open
        self.close = sink.close

    async def write(self, states: Sequence[State]) -> Sequence[Result]:
        return await self.sink.write(messages(*states))


class Rig(Protocol):
    def sink(self, on_delete: OnDelete = "delete") -> StateSink:
        """Return another worker's sink for the same target."""

    def rows(self, domain: str) -> Mapping[str, Stored]:
        """Return all rows of all case types' tables, by case id."""

    def guards(self, domain: str) -> Mapping[str, tuple[str, int, bool]]:
        """Return type, version and deleted by case id."""

    def forms(self, domain: str) -> Mapping[str, StoredForm]:
        """Return all rows of all forms' tables, by form id."""


class MemoryRig:
    def __init__(self) -> None:
        self.store = MemorySink()

    def sink(self, on_delete: OnDelete = "delete") -> StateSink:
        sink = MemorySink(on_delete)
        sink.guards, sink.rows = self.store.guards, self.store.rows
        sink.repeats = self.store.repeats
        return StateSink(sink)

    def rows(self, domain: str) -> Mapping[str, Stored]:
        return {
            row.id: Stored(row.group, own_values(row.line.own, CASES.layout), row.line.properties)
            for (of, state, _), row in self.store.rows.items()
            if (of, state) == (domain, "case")
        }

    def guards(self, domain: str) -> Mapping[str, tuple[str, int, bool]]:
        return {
            case_id: (held.group, held.version, held.deleted)
            for (of, state, case_id), held in self.store.guards.items()
            if (of, state) == (domain, "case")
        }

    def forms(self, domain: str) -> Mapping[str, StoredForm]:
        found = {}
        for (of, state, form_id), row in self.store.rows.items():
            if (of, state) == (domain, "form"):
                lines = dict(row.lines(self.store.repeats[domain, ("form", row.group)]))
                (line,) = lines.pop("")
                own = own_values(line.own, FORMS.layout)
                repeats = {path: by_place(inner) for path, inner in lines.items() if inner}
                found[form_id] = StoredForm(row.group, own, line.properties, repeats)
        return found


class SqliteRig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sink(self, on_delete: OnDelete = "delete") -> StateSink:
        return StateSink(SqliteSink(self.folder, on_delete))

    def query(self, domain: str, text: str) -> Sequence[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / f"{shortened(domain)}.db")) as connection:
            return connection.execute(text).fetchall()

    def run(self, domain: str, text: str) -> None:
        file = self.folder / f"{shortened(domain)}.db"
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute(text)

    def rows(self, domain: str) -> Mapping[str, Stored]:
        return read_rows(lambda text: self.query(domain, text))

    def guards(self, domain: str) -> Mapping[str, tuple[str, int, bool]]:
        return read_guards(lambda text: self.query(domain, text))

    def forms(self, domain: str) -> Mapping[str, StoredForm]:
        return read_forms(lambda text: self.query(domain, text))


class PostgresRig:
    def __init__(self, url: str) -> None:
        self.url = url

    def sink(self, on_delete: OnDelete = "delete") -> StateSink:
        return StateSink(PostgresSink(self.url, on_delete))

    def query(self, domain: str, text: str) -> Sequence[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            connection.execute(f"SET search_path TO {quoted(shortened(domain))}".encode())
            return connection.execute(text.encode()).fetchall()

    def run(self, domain: str, text: str) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute(f"SET search_path TO {quoted(shortened(domain))}".encode())
            connection.execute(text.encode())

    def rows(self, domain: str) -> Mapping[str, Stored]:
        return read_rows(lambda text: self.query(domain, text))

    def guards(self, domain: str) -> Mapping[str, tuple[str, int, bool]]:
        return read_guards(lambda text: self.query(domain, text))

    def forms(self, domain: str) -> Mapping[str, StoredForm]:
        return read_forms(lambda text: self.query(domain, text))


def read_catalog(query: Query) -> Catalog:
    names = query("SELECT table_name, kind, source, name FROM cw_names ORDER BY number")
    return Catalog.of([Name(*row) for row in names])


def read_lines(query: Query, table: Table) -> Iterator[Line]:
    columns = [*table.all_columns]
    selected = ", ".join(map(quoted, columns))
    for row in query(f"SELECT {selected} FROM {quoted(table.name)}"):  # noqa: S608
        by_column = dict(zip(columns, row, strict=True))
        overflow = from_json(by_column.pop("cw_overflow")) or {}
        properties = {
            source: by_column[column]
            for source, column in table.columns.items()
            if by_column[column] is not None
        }
        yield Line(own_values(by_column, table.layout), properties | overflow)


def read_rows(query: Query) -> Mapping[str, Stored]:
    found: dict[str, Stored] = {}
    for (state, case_type), table in read_catalog(query).tables.items():
        for line in read_lines(query, table) if state == "case" else ():
            case_id = str(line.own["cw_case_id"])
            assert case_id not in found, "a case has a row in two tables"
            found[case_id] = Stored(case_type, line.own, line.properties)
    return found


def read_forms(query: Query) -> Mapping[str, StoredForm]:
    found: dict[str, StoredForm] = {}
    for (state, xmlns), table in read_catalog(query).tables.items():
        if state != "form":
            continue
        inner: dict[str, list[tuple[str, Line]]] = {}
        for path, repeat in table.repeats.items():
            for line in read_lines(query, repeat):
                inner.setdefault(str(line.own["cw_form_id"]), []).append((path, line))
        for line in read_lines(query, table):
            form_id = str(line.own["cw_form_id"])
            assert form_id not in found, "a form has a row in two tables"
            of_form = inner.pop(form_id, [])
            repeats = {
                path: by_place([each for of, each in of_form if of == path])
                for path in {path for path, _ in of_form}
            }
            found[form_id] = StoredForm(xmlns, line.own, line.properties, repeats)
        assert not inner, "rows of repeats were left behind"
    return found


def by_place(lines: Sequence[Line]) -> Mapping[Place, Mapping[str, str]]:
    return {
        Place(*(line.own[f"cw_{name}"] for name in ("path", "ordinal", "parent_path"))):  # type: ignore[arg-type]
        line.properties
        for line in lines
    }  # fmt: skip


def read_guards(query: Query) -> Mapping[str, tuple[str, int, bool]]:
    rows = query("SELECT case_id, case_type, version, deleted FROM cases")
    return {case_id: (of, version, bool(deleted)) for case_id, of, version, deleted in rows}


def own_values(by_column: Mapping[str, Json], layout: Layout) -> Mapping[str, Json]:
    own = {column: by_column.get(column) for column in layout.own if column != "cw_overflow"}
    for column, kind in layout.own.items():
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
async def opened(sink: Sink | StateSink) -> AsyncIterator[StateSink]:
    await sink.open()
    try:
        yield sink if isinstance(sink, StateSink) else StateSink(sink)
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


def form_state(domain: str, form_id: str = "f1", version: int = 1, **given: Json) -> FormState:
    """Return a state; `form` is what is added to a name and an xmlns."""
    form = {"#type": "data", "@name": "Home Visit", "@xmlns": "http://example.org/visit"}
    values: dict[str, Json] = {
        "metadata": {"username": "tester", "timeStart": "2026-11-22T09:58:00.000000Z"},
        "received_on": "2026-11-22T10:00:00.000001Z",
        "app_id": "a1",
        "attachments": {},
        "archived": False,
        "captured_id": "0",
        **given,
        "form": form | given.get("form", {}),
    }
    return FormState(domain=domain, id=form_id, state_version=version, **values)


def messages(*states: State) -> Sequence[Message]:
    """Return the messages by which states come to a sink."""
    return [message(state, offset) for offset, state in enumerate(states)]


def message(state: State, offset: int) -> Message:
    return Message(
        source="case-state" if isinstance(state, CaseState) else "form-state",
        partition=0,
        offset=offset,
        timestamp=0,
        key=f"{state.domain}/{state.case_id if isinstance(state, CaseState) else state.id}",
        headers=[],
        value={},
        event=state,
        version=state.version if isinstance(state, CaseState) else state.state_version,
    )
