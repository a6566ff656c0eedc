"""What the SQL sinks hold, read back as cases, whatever the database."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from schemas.case import CaseState
from schemas.values import Json

Query = Callable[[str], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Held:
    """A case as a table has it: what data teams read."""

    table: str
    version: int
    closed: bool
    properties: Mapping[str, Json]
    parent: str | None


def sqlite_query(file: Path) -> Query:
    def query(sql: str) -> Sequence[Mapping[str, Any]]:
        connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(sql)]
        finally:
            connection.close()

    return query


def postgres_query(url: str, domain: str) -> Query:
    def query(sql: str) -> Sequence[Mapping[str, Any]]:
        with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
            connection.execute(f'SET search_path TO "{domain}"')
            return connection.execute(sql).fetchall()

    return query


def held_cases(query: Query) -> dict[str, Held]:
    """Return all cases of a domain's tables by case id."""
    names = query("SELECT * FROM cw_names")
    tables = {row["name"] for row in names if row["kind"] == "case"}
    columns = {
        table: {row["name"]: row["source"] for row in names if row["table_name"] == table}
        for table in tables
    }
    return dict(
        _held(table, row, columns[table])
        for table in sorted(tables)
        for row in query(f'SELECT * FROM "{table}"')  # noqa: S608 - names of our own
    )


def _held(table: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[str, Held]:
    properties = {columns[name]: value for name, value in row.items() if name in columns}
    held = Held(
        table=table,
        version=row["cw_version"],
        closed=bool(row["cw_closed"]),
        properties={name: value for name, value in properties.items() if value is not None},
        parent=row["cw_parent_id"],
    )
    return row["cw_case_id"], held


def unlike(states: Mapping[str, CaseState], held: Mapping[str, Held]) -> Iterator[str]:
    """Yield how the tables differ from the states: every case that lives is in them as it is."""
    living = {case_id: state for case_id, state in states.items() if not state.deleted}
    for case_id in held.keys() - living.keys():
        yield f"case {case_id} is in {held[case_id].table} but lives no more"
    for case_id, state in living.items():
        if case_id not in held:
            yield f"case {case_id} is missing"
            continue
        row = held[case_id]
        wanted = Held(
            table=row.table,
            version=state.version,
            closed=state.closed,
            properties={name: text for name, text in state.properties.items() if text is not None},
            parent=row.parent if state.indices is None else _parent(state),
        )
        if row != wanted:
            yield f"case {case_id}: {row} instead of {wanted}"


def _parent(state: CaseState) -> str | None:
    indices = state.indices or {}
    for name in ("parent", "host"):
        if name in indices:
            return indices[name]["case_id"]
    return next(iter(indices.values()))["case_id"] if len(indices) == 1 else None
