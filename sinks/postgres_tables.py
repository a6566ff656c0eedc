"""A domain's schema in PostgreSQL: adding to it, and writing a batch.

A batch is one transaction for a domain's cases and one for its forms, right at READ COMMITTED with
two workers on the same keys, as happens around a rebalance: the guard rows are made and locked in
one order first, and all that is decided afterwards is decided under these locks. Tables and columns
are added before, in a transaction of their own: added after a write, they deadlock. It runs alone:
a form that is written by what was known before a repeat was found would be half in the wrong table.

Rows travel as one array a column: level with COPY at 2,000 rows a table, faster than that at 33,
and with no temporary table, so that a pooler in transaction mode will do.
"""

import re
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Final, TypeAlias

import orjson
from psycopg import AsyncConnection, AsyncCursor
from psycopg.pq import TransactionStatus

from schemas.errors import TransientError
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
from sinks.guard import Decision, Held, OnDelete, decided
from sinks.layout import FAMILIES, Family, Kind, Layout
from sinks.moves import move_texts
from sinks.names import quoted, shortened
from sinks.rows import Cell, Line, Row, by_column
from sinks.views import postgres, postgres_functions, view_texts

Connection: TypeAlias = AsyncConnection[tuple[Any, ...]]
"""In autocommit mode, with raw cursors: `$1` is a placeholder and `%` is not."""

_TYPES: Final[Mapping[Kind, str]] = {
    "text": "text",
    "time": "timestamptz",
    "flag": "boolean",
    "number": "bigint",
    "json": "jsonb",
}

_OFTEN_ALIKE: Final = frozenset({"flag", "number", "time"})

_FORMAT: Final = re.compile(r"format (\d+)")
_LOCK_TIMEOUT: Final = "10s"
_UNFINISHED: Final = (TransactionStatus.INTRANS, TransactionStatus.INERROR)

#: JSON a statement, in characters. PostgreSQL takes a gigabyte, in several copies.
_STATEMENT_BYTES: Final = 16 * 1024 * 1024


async def _begin(connection: Connection, domain: str, lock: str) -> None:
    """Bound the waiting for locks, and have the commit wait for the disk if it would not.

    `lock` is the function of PostgreSQL that takes the domain's lock, shared or alone.
    """
    await _run(
        connection,
        "SELECT set_config('lock_timeout', $1, true), set_config('synchronous_commit', "
        "replace(current_setting('synchronous_commit'), 'off', 'on'), true), "
        f"{lock}(hashtext('casewire'), hashtext($2))",
        _LOCK_TIMEOUT,
        domain,
    )


async def held_versions(
    connection: Connection, domain: str, family: Family, ids: Sequence[str]
) -> Mapping[str, int]:
    """Return the versions that cases or forms are held in; nothing of those that are new."""
    guards = _table(domain, family.guard)
    made = await connection.execute("SELECT to_regclass($1) IS NOT NULL", [guards])
    if await made.fetchone() == (False,):
        return {}
    found = await _run(
        connection,
        f"SELECT {family.id}, version FROM {guards} "  # noqa: S608
        f"WHERE domain = $1 AND {family.id} = ANY($2::text[])",
        domain,
        ids,
    )
    return {each: version for each, version in await found.fetchall() if version >= 0}


async def grown(connection: Connection, rows: Sequence[Row], *, restore: bool) -> Catalog:
    """Add what the rows need of schema, tables and columns; return what there is then.

    `restore`: and what there once was.
    """
    domain = rows[0].domain
    async with connection.transaction():
        await _begin(connection, domain, "pg_advisory_xact_lock")
        if not await _is_made(connection, domain):
            await _make_schema(connection, domain)
        catalog = Catalog.of(await _names(connection, domain))
        if restore:
            await _restore(connection, domain, catalog)
        added = growth(rows, catalog)
        complete = catalog.with_names(added.names)
        for statement in _growth_texts(domain, added.names, complete):
            await _run(connection, statement)
        for move in added.moves:
            for statement in move_texts(move, lambda name: _table(domain, name), _first_parts):
                await _run(connection, statement)
        dialect = postgres(quoted(shortened(domain)))
        for _, statement in view_texts(added.names, complete, dialect):
            await _run(connection, statement)
        if added.names:
            await _run(
                connection,
                f"INSERT INTO {_table(domain, NAMES_TABLE)} "  # noqa: S608
                "SELECT $1::bigint + number, table_name, kind, source, name FROM "
                "unnest($2::text[], $3::text[], $4::text[], $5::text[]) "
                "WITH ORDINALITY AS new (table_name, kind, source, name, number)",
                str(len(catalog.names)),
                [name.table for name in added.names],
                [name.kind for name in added.names],
                [name.source for name in added.names],
                [name.name for name in added.names],
            )
    return complete


async def _is_made(connection: Connection, domain: str) -> bool:
    """Return whether a domain has its schema. Raises TargetError if a newer Casewire made it."""
    found = await connection.execute(
        "SELECT to_regclass($1), obj_description(to_regclass($1), 'pg_class')",
        [_table(domain, NAMES_TABLE)],
    )
    table, comment = await found.fetchone() or (None, None)
    if stated := _FORMAT.search(comment or ""):
        require_format(int(stated[1]), f"the schema {shortened(domain)}")
    return table is not None


async def _make_schema(connection: Connection, domain: str) -> None:
    """Make the schema unless an operator has, who then need not let us create any."""
    found = await connection.execute(
        "SELECT 1 FROM pg_namespace WHERE nspname = $1", [shortened(domain)]
    )
    if await found.fetchone() is None:
        await _run(connection, f"CREATE SCHEMA {quoted(shortened(domain))}")
    for statement in postgres_functions(quoted(shortened(domain))):
        await _run(connection, statement)
    for family in FAMILIES.values():
        await _run(connection, _table_text(domain, family.guard, family.guard_layout))
    await _run(connection, _table_text(domain, NAMES_TABLE, NAMES_LAYOUT))
    comment = f"COMMENT ON TABLE {_table(domain, NAMES_TABLE)} IS 'Casewire, format {SQL_FORMAT}'"
    await _run(connection, comment)


async def _restore(connection: Connection, domain: str, catalog: Catalog) -> None:
    for name, table in sorted(catalog.by_name().items()):
        found = await connection.execute("SELECT to_regclass($1)", [_table(domain, name)])
        if await found.fetchone() == (None,):
            layout = Layout(table.layout.key, table.all_columns)
            await _run(connection, _table_text(domain, name, layout))
        elif table.columns:
            await _run(connection, _columns_text(domain, name, table.columns.values()))
    for _, text in view_texts(catalog.names, catalog, postgres(quoted(shortened(domain)))):
        await _run(connection, text)


def _columns_text(domain: str, table: str, names: Iterable[str]) -> str:
    parts = ", ".join(f"ADD COLUMN IF NOT EXISTS {quoted(name)} text" for name in names)
    return f"ALTER TABLE {_table(domain, table)} {parts}"


def _growth_texts(domain: str, added: Sequence[Name], catalog: Catalog) -> Iterator[str]:
    """Yield one statement a table, in the order of their names, with all new columns."""
    tables = catalog.by_name()
    new = {name.name for name in added if name.kind in ("case", "form", "repeat")}
    columns: dict[str, list[str]] = {table: [] for table in new}
    for name in added:
        if name.kind == "column":
            columns.setdefault(name.table, []).append(name.name)
    for table, names in sorted(columns.items()):
        if table in new:
            layout = Layout(tables[table].layout.key, tables[table].all_columns)
            yield _table_text(domain, table, layout)
        else:
            yield _columns_text(domain, table, names)


def _table_text(domain: str, name: str, layout: Layout) -> str:
    """Return CREATE TABLE. The key's index is named so that no case type's table can clash."""
    parts = [f"{quoted(column)} {_TYPES[kind]}" for column, kind in layout.own.items()]
    constraint = quoted(shortened(f"key_{name}"))
    return (
        f"CREATE TABLE {_table(domain, name)} "
        f"({', '.join(parts)}, CONSTRAINT {constraint} PRIMARY KEY ({', '.join(layout.key)}))"
    )


def _first_parts(number: int) -> str:
    return f"array_to_string((string_to_array(cw_path, '/'))[1:{number}], '/')"


@asynccontextmanager
async def at_once(connection: Connection, *, commit: bool) -> AsyncIterator[None]:
    """Have a transaction whose statements do not wait for the answers of those before.

    Whoever needs an answer waits for it; at the end there is one wait for all others and for the
    commit. Raises what the first statement that failed raises, with nothing written.
    """
    try:
        async with connection.pipeline():
            await connection.execute(b"BEGIN ISOLATION LEVEL READ COMMITTED")
            yield
            await connection.execute(b"COMMIT" if commit else b"ROLLBACK")
    except Exception:
        # What was to be prepared behind the failure was not, and psycopg takes it for prepared.
        connection._prepared.clear()  # noqa: SLF001
        if connection.info.transaction_status in _UNFINISHED:
            await connection.execute(b"ROLLBACK")
        raise


async def applied(
    connection: Connection, rows: Sequence[Row], catalog: Catalog | None, on_delete: OnDelete
) -> tuple[Decision, Catalog]:
    """Write a domain's cases or its forms, sorted by id, within the caller's transaction."""
    domain, family = rows[0].domain, rows[0].family
    await _begin(connection, domain, "pg_advisory_xact_lock_shared")
    names, taken = await _guarded(connection, rows)
    if catalog is None or names != len(catalog.names):
        catalog = Catalog.of(await _names(connection, domain))
        if catalog.lacks(rows):
            raise TransientError("the tables have changed meanwhile: what is missing will be added")
    held = await _held(connection, domain, family, [r.id for r in rows if r.id not in taken])
    decision = decided(rows, held, on_delete)
    changed = {each: guard for each, guard in decision.guards.items() if each in held}
    await _write_guards(connection, domain, family, changed)
    tables = catalog.written(decision)
    if tables and (
        decision.removed or decision.marked or any(each.repeats for each in tables.values())
    ):
        await _lock_tables(connection, domain, tables.values())
    left: dict[str, Mapping[str, Cell]] = {}
    for group, table in tables.items():
        removed, upserts = decision.removed.get(group, ()), decision.upserts.get(group, ())
        left |= await _removed(connection, domain, family, table, removed)
        await _empty_repeats(connection, domain, table, [*removed, *(each.id for each in upserts)])
        await _mark(connection, domain, table, decision.marked.get(group, ()))
    for group, table in tables.items():
        for path, lines in lines_of(decision.upserts.get(group, ()), table, left).items():
            for group_of_lines in by_kept(lines).values():
                await _upsert(connection, domain, table.at(path) or table, group_of_lines)
    return decision, catalog


async def _lock_tables(connection: Connection, domain: str, tables: Iterable[Table]) -> None:
    """Lock tables that are gone through more than once, in the order that others alter them in."""
    names = sorted(each.name for table in tables for each in table.all())
    listed = ", ".join(_table(domain, name) for name in names)
    await _run(connection, f"LOCK TABLE {listed} IN ROW EXCLUSIVE MODE")


async def _guarded(connection: Connection, rows: Sequence[Row]) -> tuple[int, Collection[str]]:
    """Lock the guards of all rows; write those of which it is plain what they have to be.

    That is so of what is new, and of newer versions that neither come nor go nor change their
    group. Returns the ids of these, and how many names there are: now that the domain's lock is
    held, nobody adds any.
    """
    domain, family = rows[0].domain, rows[0].family
    layout = family.guard_layout
    guards = {row.id: Held(row.group, row.version, row.deleted) for row in rows}
    selected, arguments = _selected(domain, layout.own, _guard_cells(family, guards))
    found = await _run(
        connection,
        f"WITH taken AS (INSERT INTO {_table(domain, family.guard)} AS held "  # noqa: S608
        f"({', '.join(layout.own)}) SELECT {selected} "
        f"ON CONFLICT ({', '.join(layout.key)}) DO UPDATE "
        "SET version = excluded.version WHERE held.version <= excluded.version "
        f"AND held.{family.group} = excluded.{family.group} "
        f"AND NOT (held.deleted OR excluded.deleted) RETURNING {family.id}) "
        f"SELECT (SELECT count(*) FROM {_table(domain, NAMES_TABLE)}), "
        f"(SELECT json_agg({family.id})::text FROM taken)",
        *arguments,
    )
    names, taken = await found.fetchone() or (0, None)
    return names, frozenset(orjson.loads(taken or "[]"))


async def _held(
    connection: Connection, domain: str, family: Family, ids: Sequence[str]
) -> Mapping[str, Held]:
    """Return what guards hold that are locked already."""
    if not ids:
        return {}
    found = await _run(
        connection,
        "SELECT held.* FROM unnest($2::text[]) AS known, LATERAL "  # noqa: S608
        f"(SELECT {family.id}, {family.group}, version, deleted FROM "
        f"{_table(domain, family.guard)} WHERE domain = $1 AND {family.id} = known) AS held",
        domain,
        ids,
    )
    return {each: Held(*rest) for each, *rest in await found.fetchall()}


async def _write_guards(
    connection: Connection, domain: str, family: Family, guards: Mapping[str, Held]
) -> None:
    if not guards:
        return
    layout = family.guard_layout
    selected, arguments = _selected(domain, layout.own, _guard_cells(family, guards))
    changes = ", ".join(
        f"{column} = excluded.{column}" for column in layout.own if column not in layout.key
    )
    await _run(
        connection,
        f"INSERT INTO {_table(domain, family.guard)} ({', '.join(layout.own)}) "
        f"SELECT {selected} ON CONFLICT ({', '.join(layout.key)}) DO UPDATE SET {changes}",
        *arguments,
    )


def _guard_cells(family: Family, guards: Mapping[str, Held]) -> Mapping[str, Sequence[Cell]]:
    held = guards.values()
    return {
        family.id: list(guards),
        family.group: [each.group for each in held],
        "version": [each.version for each in held],
        "deleted": [each.deleted for each in held],
    }


async def _removed(
    connection: Connection, domain: str, family: Family, table: Table, ids: Sequence[str]
) -> Mapping[str, Mapping[str, Cell]]:
    """Delete rows, and return what they held in the columns that a state may keep."""
    if not ids:
        return {}
    kept = ", ".join(f"{column}::text" for column in family.kept)
    found = await _run(
        connection,
        f"DELETE FROM {_table(domain, table.name)} {_where(table)} "  # noqa: S608
        f"RETURNING {family.id_column}, {kept}",
        domain,
        ids,
    )
    return {
        each: dict(zip(family.kept, texts, strict=True)) for each, *texts in await found.fetchall()
    }


async def _empty_repeats(
    connection: Connection, domain: str, table: Table, ids: Sequence[str]
) -> None:
    for repeat in table.repeats.values() if ids else ():
        text = f"DELETE FROM {_table(domain, repeat.name)} {_where(repeat)}"  # noqa: S608
        await _run(connection, text, domain, ids)


async def _mark(connection: Connection, domain: str, table: Table, ids: Sequence[str]) -> None:
    if ids:
        text = f"UPDATE {_table(domain, table.name)} SET cw_deleted = true {_where(table)}"  # noqa: S608
        await _run(connection, text, domain, ids)


async def _upsert(connection: Connection, domain: str, table: Table, lines: Sequence[Line]) -> None:
    """Write lines that keep the same columns, in halves if a statement would be too large."""
    columns = table.all_columns
    found = by_column(lines, table.layout.own, table.columns)
    selected, arguments = _selected(domain, columns, found)
    if len(lines) > 1 and sum(map(len, arguments)) > _STATEMENT_BYTES:
        middle = len(lines) // 2
        await _upsert(connection, domain, table, lines[:middle])
        await _upsert(connection, domain, table, lines[middle:])
        return
    await _run(
        connection,
        f"INSERT INTO {_table(domain, table.name)} ({', '.join(map(quoted, columns))}) "
        f"SELECT {selected} {upsert_tail(table, lines[0].kept)}",
        *arguments,
    )


def _selected(
    domain: str, columns: Mapping[str, Kind], found: Mapping[str, Sequence[Cell]]
) -> tuple[str, Sequence[str]]:
    """Return what to select for each column, as SQL, and the arguments of that.

    The first column is that of the domain. All columns are listed, so what no row has becomes null.
    Arrays in a list of what is selected come to rows element by element; flags, numbers and times
    that all rows have alike are sent once.
    """
    texts, arguments = ["$1::text"], [domain]
    for column, kind in islice(columns.items(), 1, None):
        cells = found.get(column, ())
        if not cells:
            texts.append(f"NULL::{_TYPES[kind]}")
        elif kind in _OFTEN_ALIKE and cells.count(cells[0]) == len(cells):
            arguments.append(str(cells[0]))
            texts.append(f"${len(arguments)}::{_TYPES[kind]}")
        else:
            arguments.append(_array(cells, kind))
            texts.append(f"unnest(${len(arguments)}::{_TYPES[kind]}[])")
    return ", ".join(texts), arguments


def _array(cells: Sequence[Cell], kind: Kind) -> str:
    """Return cells as PostgreSQL reads an array (postgresql.org/docs/current/arrays.html).

    That is JSON with other brackets, but for control characters in a text: JSON has letters for
    them, of which an array's backslash would leave the letters.
    """
    text = orjson.dumps(cells).decode()
    if kind != "json" and "\\" in text:
        return f"{{{','.join(map(_quoted_cell, cells))}}}"
    return f"{{{text[1:-1]}}}"


def _quoted_cell(cell: Cell) -> str:
    if cell is None:
        return "null"
    return '"' + str(cell).replace("\\", "\\\\").replace('"', '\\"') + '"'


async def _names(connection: Connection, domain: str) -> Sequence[Name]:
    names = _table(domain, NAMES_TABLE)
    text = f"SELECT table_name, kind, source, name FROM {names} ORDER BY number"  # noqa: S608
    found = await _run(connection, text)
    return [Name(*row) for row in await found.fetchall()]


async def _run(
    connection: Connection, text: str, *arguments: str | Sequence[str]
) -> AsyncCursor[Any]:
    """Run a statement whose text holds names: they are quoted, and all values are `arguments`."""
    return await connection.execute(text.encode(), arguments)


def _table(domain: str, name: str) -> str:
    return f"{quoted(shortened(domain))}.{quoted(name)}"


def _where(table: Table) -> str:
    domain, of = table.layout.key[:2]
    return f"WHERE {domain} = $1 AND {of} = ANY($2::text[])"
