"""SQLite: a file a domain, written by a thread of its own.

A write is on the disk when it is reported (WAL with synchronous = FULL), since the Kafka offset is
committed after it. SQLite lets one writer in at a time, so that a batch is one transaction, columns
that it adds included.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from schemas.errors import TargetError, TransientError
from sinks.base import Message, Outcome
from sinks.catalog import (
    GUARD_COLUMNS,
    GUARD_TABLE,
    NAMES_TABLE,
    CaseTable,
    Catalog,
    Name,
    by_kept,
    growth,
    missing,
    upsert_tail,
)
from sinks.guard import Held, OnDelete, by_domain, decided
from sinks.names import quoted, shortened
from sinks.rows import KEY, OWN_COLUMNS, UNSAYABLE, Cell, Kind, Row, cases, cells, filled, prepared

T = TypeVar("T")

_TYPES: Final[Mapping[Kind, str]] = {
    "text": "TEXT",
    "time": "TEXT",
    "flag": "INTEGER",
    "number": "INTEGER",
    "json": "TEXT",
}

_TRANSIENT: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_PRIMARY_CODE: Final = 0xFF


class SqliteSink:
    """Writes `<folder>/<domain>.db`.

    `busy_seconds`: how long a write waits for another process that writes the same file.
    """

    def __init__(
        self, folder: Path, on_delete: OnDelete = "delete", *, busy_seconds: float = 10
    ) -> None:
        self._folder = folder
        self._busy_seconds = busy_seconds
        self._on_delete: OnDelete = on_delete
        self._thread: ThreadPoolExecutor | None = None
        self._connections: dict[str, sqlite3.Connection] = {}

    async def open(self) -> None:
        await self._in_thread(lambda: _make_folder(self._folder))

    async def write(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        return await self._in_thread(lambda: self._write(messages))

    async def versions(self, messages: Sequence[Message]) -> Sequence[int | None]:
        def read(message: Message) -> int | None:
            file = self._file(message.domain)
            if not file.exists():
                return None
            with _translated_errors(file):
                return _version(self._connection(message.domain), message)

        return await self._in_thread(lambda: [read(message) for message in messages])

    async def close(self) -> None:
        if self._thread is not None:
            await self._in_thread(self._disconnect)
            self._thread.shutdown(wait=False)
            self._thread = None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _write(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        rows = prepared(cases(messages), takes_nul=True)
        outcomes: dict[int, Outcome] = {}
        for domain, places in by_domain(rows).items():
            chosen = [rows[place] for place in places]
            with _translated_errors(self._file(domain)):
                written = _write_domain(self._connection(domain), chosen, self._on_delete)
            outcomes.update(zip(places, written, strict=True))
        return [outcomes[place] for place in range(len(rows))]

    def _file(self, domain: str) -> Path:
        return self._folder / f"{shortened(domain)}.db"

    def _connection(self, domain: str) -> sqlite3.Connection:
        file = self._file(domain)
        if domain in self._connections and not file.exists():
            # Somebody removed it: what is written to it now would be gone when it is closed.
            self._connections.pop(domain).close()
        if domain not in self._connections:
            self._connections[domain] = _connect(file, self._busy_seconds)
        return self._connections[domain]

    def _disconnect(self) -> None:
        for connection in self._connections.values():
            with suppress(sqlite3.Error):
                connection.close()
        self._connections.clear()


@contextmanager
def _translated_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        text = f"SQLite cannot write {file} ({error})"
        # Errors of the module itself have no code.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & _PRIMARY_CODE
        if code in _TRANSIENT:
            raise TransientError(text) from error
        raise TargetError(f"{text}: check the file, its folder and their owner") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(
            f"the folder {folder} cannot be made ({error.strerror}): "
            "create it, or give Casewire's user the right to"
        ) from error


def _connect(file: Path, busy_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=busy_seconds, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        with _transaction(connection):
            connection.execute(_table_text(GUARD_TABLE, GUARD_COLUMNS, ("domain", "case_id")))
            columns: Mapping[str, Kind] = dict.fromkeys(("table_name", "source", "name"), "text")
            connection.execute(_table_text(NAMES_TABLE, columns, ("table_name", "name")))
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _write_domain(
    connection: sqlite3.Connection, rows: Sequence[Row], on_delete: OnDelete
) -> Sequence[Outcome]:
    with _transaction(connection):
        catalog = _grown(connection, rows)
        decision = decided(rows, _held(connection, rows), on_delete)
        domain = rows[0].domain
        connection.executemany(
            f"INSERT OR REPLACE INTO {GUARD_TABLE} VALUES (?, ?, ?, ?, ?)",  # noqa: S608
            [
                (domain, case_id, held.case_type, held.version, held.deleted)
                for case_id, held in decision.guards.items()
            ],
        )
        tables = catalog.written(decision)
        left: dict[str, Mapping[str, Cell]] = {}
        for case_type, table in tables.items():
            left |= _removed(connection, table, domain, decision.removed.get(case_type, ()))
            connection.executemany(
                f"UPDATE {quoted(table.name)} SET cw_deleted = 1"  # noqa: S608
                " WHERE cw_domain = ? AND cw_case_id = ?",
                [(domain, case_id) for case_id in decision.marked.get(case_type, ())],
            )
        for case_type, table in tables.items():
            _upsert(connection, table, decision.upserts.get(case_type, ()), left)
    return decision.outcomes


def _grown(connection: sqlite3.Connection, rows: Sequence[Row]) -> Catalog:
    """Return the catalog, with all tables and columns that the rows need."""
    found = connection.execute(f"SELECT table_name, source, name FROM {NAMES_TABLE}")  # noqa: S608
    names = [Name(*row) for row in found]
    catalog = Catalog.of(names)
    lacking = missing(rows, catalog)
    if not lacking:
        return catalog
    added = growth(lacking, catalog)
    for name in added:
        if name.table:
            connection.execute(
                f"ALTER TABLE {quoted(name.table)} ADD COLUMN {quoted(name.name)} TEXT"
            )
        else:
            connection.execute(_table_text(name.name, OWN_COLUMNS, KEY))
    connection.executemany(
        f"INSERT INTO {NAMES_TABLE} VALUES (?, ?, ?)",  # noqa: S608
        [(name.table, name.source, name.name) for name in added],
    )
    return Catalog.of([*names, *added])


def _held(connection: sqlite3.Connection, rows: Sequence[Row]) -> Mapping[str, Held]:
    found = {}
    query = (
        f"SELECT case_type, version, deleted FROM {GUARD_TABLE} WHERE domain = ? AND case_id = ?"  # noqa: S608
    )
    for row in rows:
        for case_type, version, deleted in connection.execute(query, (row.domain, row.case_id)):
            found[row.case_id] = Held(case_type, version, bool(deleted))
    return found


def _version(connection: sqlite3.Connection, message: Message) -> int | None:
    query = f"SELECT version FROM {GUARD_TABLE} WHERE domain = ? AND case_id = ?"  # noqa: S608
    found = connection.execute(query, (message.domain, message.subject)).fetchone()
    return None if found is None else int(found[0])


def _removed(
    connection: sqlite3.Connection, table: CaseTable, domain: str, case_ids: Sequence[str]
) -> Mapping[str, Mapping[str, Cell]]:
    """Delete rows, and return what they held in the columns that a state may keep."""
    found = {}
    where = f"FROM {quoted(table.name)} WHERE cw_domain = ? AND cw_case_id = ?"
    for case_id in case_ids:
        query = f"SELECT {', '.join(UNSAYABLE)} {where}"
        for row in connection.execute(query, (domain, case_id)):
            found[case_id] = dict(zip(UNSAYABLE, row, strict=True))
        connection.execute(f"DELETE {where}", (domain, case_id))
    return found


def _upsert(
    connection: sqlite3.Connection,
    table: CaseTable,
    rows: Sequence[Row],
    left: Mapping[str, Mapping[str, Cell]],
) -> None:
    columns = list(table.all_columns)
    complete = [filled(row, left[row.case_id]) if row.case_id in left else row for row in rows]
    for kept, group in by_kept(complete).items():
        names, marks = ", ".join(map(quoted, columns)), ", ".join("?" * len(columns))
        connection.executemany(
            f"INSERT INTO {quoted(table.name)} ({names}) VALUES ({marks})"  # noqa: S608
            f" {upsert_tail(columns, kept)}",
            (
                [by_column.get(column) for column in columns]
                for by_column in (cells(row, table.columns) for row in group)
            ),
        )


def _table_text(name: str, columns: Mapping[str, Kind], key: Sequence[str]) -> str:
    parts = [f"{quoted(column)} {_TYPES[kind]}" for column, kind in columns.items()]
    return (
        f"CREATE TABLE IF NOT EXISTS {quoted(name)} "
        f"({', '.join(parts)}, PRIMARY KEY ({', '.join(key)}))"
    )
