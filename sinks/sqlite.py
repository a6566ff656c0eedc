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
    NAMES_LAYOUT,
    NAMES_TABLE,
    SQL_FORMAT,
    Catalog,
    Name,
    Table,
    by_kept,
    growth,
    lines_of,
    require_format,
    upsert_tail,
)
from sinks.guard import Held, OnDelete, decided, parts
from sinks.layout import FAMILIES, Kind, Layout
from sinks.moves import move_texts
from sinks.names import quoted, shortened
from sinks.rows import Cell, Line, Row, cells, prepared
from sinks.views import sqlite, view_texts

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
    `restore`: tables, columns and views that somebody has dropped are made anew, empty.
    """

    def __init__(
        self,
        folder: Path,
        on_delete: OnDelete = "delete",
        *,
        busy_seconds: float = 10,
        restore: bool = False,
    ) -> None:
        self._folder = folder
        self._busy_seconds = busy_seconds
        self._on_delete: OnDelete = on_delete
        self._restore = restore
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
        rows = prepared(messages, takes_nul=True)
        outcomes: dict[int, Outcome] = {}
        for (domain, _), places in parts(rows).items():
            chosen = [rows[place] for place in places]
            with _translated_errors(self._file(domain)):
                written = _write_part(self._connection(domain), chosen, self._on_delete)
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
            if self._restore:
                _restored(self._connections[domain])
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
        words = str(error)
        text = f"SQLite cannot write {file} ({getattr(error, 'sqlite_errorname', 'misuse')})"
        # Errors of the module itself have no code.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & _PRIMARY_CODE
        if code in _TRANSIENT:
            raise TransientError(text, target_error=words) from error
        raise TargetError(
            f"{text}: check the file, its folder and their owner", target_error=words
        ) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(
            f"the folder {folder} cannot be made ({error.strerror}): "
            "create it, or give Casewire's user the right to"
        ) from error


def _require_format(connection: sqlite3.Connection, file: Path) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    require_format(found, str(file))
    if found < SQL_FORMAT:
        connection.execute(f"PRAGMA user_version = {SQL_FORMAT}")


def _connect(file: Path, busy_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=busy_seconds, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.create_function("cw_first_parts", 2, _first_parts, deterministic=True)
        with _transaction(connection):
            _require_format(connection, file)
            for family in FAMILIES.values():
                connection.execute(_table_text(family.guard, family.guard_layout))
            connection.execute(_table_text(NAMES_TABLE, NAMES_LAYOUT))
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


def _write_part(
    connection: sqlite3.Connection, rows: Sequence[Row], on_delete: OnDelete
) -> Sequence[Outcome]:
    with _transaction(connection):
        catalog = _grown(connection, rows)
        held = _held(connection, rows)
        decision = decided(rows, held, on_delete)
        domain, family = rows[0].domain, rows[0].family
        connection.executemany(
            f"INSERT OR REPLACE INTO {family.guard} VALUES (?, ?, ?, ?, ?)",  # noqa: S608
            [
                (domain, each, guard.group, guard.version, guard.deleted)
                for each, guard in decision.guards.items()
            ],
        )
        tables = catalog.written(decision)
        left: dict[str, Mapping[str, Cell]] = {}
        for group, table in tables.items():
            removed, replaced = decision.removed.get(group, ()), decision.replaced.get(group, ())
            left |= _kept(connection, table, family.kept, domain, removed)
            _delete(connection, table, domain, removed)
            for repeat in table.repeats.values():
                _delete(connection, repeat, domain, [*removed, *replaced])
            connection.executemany(
                f"UPDATE {quoted(table.name)} SET cw_deleted = 1 {_where(table)}",  # noqa: S608
                [(domain, each) for each in decision.marked.get(group, ())],
            )
        for group, table in tables.items():
            for path, lines in lines_of(decision.upserts.get(group, ()), table, left).items():
                _upsert(connection, table.at(path) or table, lines)
    return decision.outcomes


def _restored(connection: sqlite3.Connection) -> None:
    with _transaction(connection):
        catalog = _catalog(connection)
        for name, table in catalog.by_name().items():
            connection.execute(_table_text(name, Layout(table.layout.key, table.all_columns)))
            there = {row[1] for row in connection.execute(f"PRAGMA table_info({quoted(name)})")}
            for column in table.columns.values():
                if column not in there:
                    connection.execute(_column_text(name, column))
        _make_views(connection, catalog.names, catalog)


def _catalog(connection: sqlite3.Connection) -> Catalog:
    query = f"SELECT table_name, kind, source, name FROM {NAMES_TABLE} ORDER BY number"  # noqa: S608
    return Catalog.of([Name(*row) for row in connection.execute(query)])


def _make_views(connection: sqlite3.Connection, added: Sequence[Name], catalog: Catalog) -> None:
    for view, text in view_texts(added, catalog, sqlite()):
        connection.execute(f"DROP VIEW IF EXISTS {quoted(view)}")
        connection.execute(text)


def _column_text(table: str, column: str) -> str:
    return f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(column)} TEXT"


def _grown(connection: sqlite3.Connection, rows: Sequence[Row]) -> Catalog:
    """Return the catalog, with all tables and columns that the rows need."""
    catalog = _catalog(connection)
    if catalog.suffices(rows):
        return catalog
    added = growth(rows, catalog)
    complete = catalog.with_names(added.names)
    tables = complete.by_name()
    for name in added.names:
        if name.kind == "column":
            connection.execute(_column_text(name.table, name.name))
        elif name.kind in ("case", "form", "repeat"):
            connection.execute(_table_text(name.name, tables[name.name].layout))
    for move in added.moves:
        for text in move_texts(move, quoted, "cw_first_parts(cw_path, {})".format):
            connection.execute(text)
    _make_views(connection, added.names, complete)
    connection.executemany(
        f"INSERT INTO {NAMES_TABLE} VALUES (?, ?, ?, ?, ?)",  # noqa: S608
        [
            (number, name.table, name.kind, name.source, name.name)
            for number, name in enumerate(added.names, len(catalog.names) + 1)
        ],
    )
    return complete


def _first_parts(path: str, number: int) -> str:
    return "/".join(path.split("/")[:number])


def _held(connection: sqlite3.Connection, rows: Sequence[Row]) -> Mapping[str, Held]:
    found, family = {}, rows[0].family
    query = (
        f"SELECT {family.group}, version, deleted FROM {family.guard} "  # noqa: S608
        f"WHERE domain = ? AND {family.id} = ?"
    )
    for row in rows:
        for group, version, deleted in connection.execute(query, (row.domain, row.id)):
            found[row.id] = Held(group, version, bool(deleted))
    return found


def _version(connection: sqlite3.Connection, message: Message) -> int | None:
    family = FAMILIES[message.kind]
    query = f"SELECT version FROM {family.guard} WHERE domain = ? AND {family.id} = ?"  # noqa: S608
    found = connection.execute(query, (message.domain, message.subject)).fetchone()
    return None if found is None else int(found[0])


def _kept(
    connection: sqlite3.Connection,
    table: Table,
    columns: Sequence[str],
    domain: str,
    ids: Sequence[str],
) -> Mapping[str, Mapping[str, Cell]]:
    """Return what rows hold in the columns that a state may keep."""
    found = {}
    query = f"SELECT {', '.join(columns)} FROM {quoted(table.name)} {_where(table)}"  # noqa: S608
    for each in ids:
        for row in connection.execute(query, (domain, each)):
            found[each] = dict(zip(columns, row, strict=True))
    return found


def _delete(connection: sqlite3.Connection, table: Table, domain: str, ids: Sequence[str]) -> None:
    text = f"DELETE FROM {quoted(table.name)} {_where(table)}"  # noqa: S608
    connection.executemany(text, [(domain, each) for each in ids])


def _where(table: Table) -> str:
    domain, of = table.layout.key[:2]
    return f"WHERE {domain} = ? AND {of} = ?"


def _upsert(connection: sqlite3.Connection, table: Table, lines: Sequence[Line]) -> None:
    columns = list(table.all_columns)
    names, marks = ", ".join(map(quoted, columns)), ", ".join("?" * len(columns))
    for kept, group in by_kept(lines).items():
        connection.executemany(
            f"INSERT INTO {quoted(table.name)} ({names}) VALUES ({marks})"  # noqa: S608
            f" {upsert_tail(table, kept)}",
            (
                [by_column.get(column) for column in columns]
                for by_column in (cells(line, table.columns) for line in group)
            ),
        )


def _table_text(name: str, layout: Layout) -> str:
    columns = [f"{quoted(column)} {_TYPES[kind]}" for column, kind in layout.own.items()]
    return (
        f"CREATE TABLE IF NOT EXISTS {quoted(name)} "
        f"({', '.join(columns)}, PRIMARY KEY ({', '.join(layout.key)}))"
    )
