"""A domain's schema in PostgreSQL: adding to it, and writing a batch.

A batch is one transaction for a domain's cases and one for its forms, right at READ COMMITTED with
two workers on the same keys, as happens around a rebalance: the guard rows are made and locked in
one order first, and all that is decided afterwards is decided under these locks. Tables and columns
are added before, in a transaction of their own: added after a write, they deadlock. It runs alone:
a form that is written by what was known before a repeat was found would be half in the wrong table.

Rows travel as one JSON parameter: level with COPY at 2,000 rows a table, 1.7 times faster at 33,
and with no temporary table, so that a pooler in transaction mode will do.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson
from psycopg import AsyncConnection, AsyncCursor

from schemas.errors import TransientError
from sinks.catalog import (
    NAMES_LAYOUT,
    NAMES_TABLE,
    Catalog,
    Name,
    Table,
    by_kept,
    growth,
    lines_of,
    upsert_tail,
)
from sinks.guard import Decision, Held, OnDelete, decided
from sinks.layout import FAMILIES, Family, Kind, Layout
from sinks.moves import move_texts
from sinks.names import quoted, shortened
from sinks.rows import Cell, Line, Row, cells

Connection: TypeAlias = AsyncConnection[tuple[Any, ...]]
"""In autocommit mode, with raw cursors: `$1` is a placeholder and `%` is not."""

_TYPES: Final[Mapping[Kind, str]] = {
    "text": "text",
    "time": "timestamptz",
    "flag": "boolean",
    "number": "bigint",
    "json": "jsonb",
}

_LOCK_TIMEOUT: Final = "10s"

#: JSON a statement. PostgreSQL takes a gigabyte, in several copies.
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


async def grown(connection: Connection, rows: Sequence[Row]) -> Catalog:
    """Add what the rows need of schema, tables and columns; return what there is then."""
    domain = rows[0].domain
    async with connection.transaction():
        await _begin(connection, domain, "pg_advisory_xact_lock")
        found = await connection.execute("SELECT to_regclass($1)", [_table(domain, NAMES_TABLE)])
        if await found.fetchone() == (None,):
            await _make_schema(connection, domain)
        catalog = Catalog.of(await _names(connection, domain))
        added = growth(rows, catalog)
        complete = catalog.with_names(added.names)
        for statement in _growth_texts(domain, added.names, complete):
            await _run(connection, statement)
        for move in added.moves:
            for statement in move_texts(move, lambda name: _table(domain, name), _first_parts):
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


async def _make_schema(connection: Connection, domain: str) -> None:
    """Make the schema unless an operator has, who then need not let us create any."""
    found = await connection.execute(
        "SELECT 1 FROM pg_namespace WHERE nspname = $1", [shortened(domain)]
    )
    if await found.fetchone() is None:
        await _run(connection, f"CREATE SCHEMA {quoted(shortened(domain))}")
    for family in FAMILIES.values():
        await _run(connection, _table_text(domain, family.guard, family.guard_layout))
    await _run(connection, _table_text(domain, NAMES_TABLE, NAMES_LAYOUT))


def _growth_texts(domain: str, added: Sequence[Name], catalog: Catalog) -> Iterator[str]:
    """Yield one statement a table, in the order of their names, with all new columns."""
    tables = {table.name: table for each in catalog.tables.values() for table in each.all()}
    new = {name.name for name in added if name.kind != "column"}
    columns: dict[str, list[str]] = {table: [] for table in new}
    for name in added:
        if name.kind == "column":
            columns.setdefault(name.table, []).append(name.name)
    for table, names in sorted(columns.items()):
        if table in new:
            layout = Layout(tables[table].layout.key, tables[table].all_columns)
            yield _table_text(domain, table, layout)
        else:
            parts = ", ".join(f"ADD COLUMN IF NOT EXISTS {quoted(name)} text" for name in names)
            yield f"ALTER TABLE {_table(domain, table)} {parts}"


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


async def applied(
    connection: Connection, rows: Sequence[Row], catalog: Catalog | None, on_delete: OnDelete
) -> tuple[Decision, Catalog]:
    """Write a domain's cases or its forms, sorted by id, within the caller's transaction."""
    domain, family = rows[0].domain, rows[0].family
    await _begin(connection, domain, "pg_advisory_xact_lock_shared")
    held = await _locked(connection, rows)
    # Only under the locks: what another worker wrote to these rows, we have its columns.
    found = await _run(connection, f"SELECT count(*) FROM {_table(domain, NAMES_TABLE)}")  # noqa: S608
    if catalog is None or await found.fetchone() != (len(catalog.names),):
        catalog = Catalog.of(await _names(connection, domain))
        if any(map(catalog.lacks, rows)):
            raise TransientError("the tables have changed meanwhile: what is missing will be added")
    decision = decided(rows, held, on_delete)
    await _write_guards(connection, domain, family, decision.guards)
    tables = catalog.written(decision)
    if tables:
        # In the order in which another worker may be adding columns to them.
        names = sorted(each.name for table in tables.values() for each in table.all())
        listed = ", ".join(_table(domain, name) for name in names)
        await _run(connection, f"LOCK TABLE {listed} IN ROW EXCLUSIVE MODE")
    left: dict[str, Mapping[str, Cell]] = {}
    for group, table in tables.items():
        removed, replaced = decision.removed.get(group, ()), decision.replaced.get(group, ())
        left |= await _removed(connection, domain, family, table, removed)
        await _empty_repeats(connection, domain, table, [*removed, *replaced])
        await _mark(connection, domain, table, decision.marked.get(group, ()))
    for group, table in tables.items():
        for path, lines in lines_of(decision.upserts.get(group, ()), table, left).items():
            await _upsert(connection, domain, table.at(path) or table, lines)
    return decision, catalog


async def _locked(connection: Connection, rows: Sequence[Row]) -> Mapping[str, Held]:
    """Make and lock the rows' guards; return what was held. New ones have version -1."""
    domain, family, ids = rows[0].domain, rows[0].family, [row.id for row in rows]
    guards = _table(domain, family.guard)
    await _run(
        connection,
        f"INSERT INTO {guards} (domain, {family.id}, {family.group}, version, deleted) "  # noqa: S608
        "SELECT $1, new, '', -1, true FROM unnest($2::text[]) AS new "
        f"ON CONFLICT (domain, {family.id}) DO NOTHING",
        domain,
        ids,
    )
    found = await _run(
        connection,
        f"SELECT {family.id}, {family.group}, version, deleted FROM {guards} "  # noqa: S608
        f"WHERE domain = $1 AND {family.id} = ANY($2::text[]) ORDER BY {family.id} FOR UPDATE",
        domain,
        ids,
    )
    held = {each: Held(*rest) for each, *rest in await found.fetchall()}
    return {each: guard for each, guard in held.items() if guard.version >= 0}


async def _write_guards(
    connection: Connection, domain: str, family: Family, guards: Mapping[str, Held]
) -> None:
    kinds = ", ".join(
        f"{column} {_TYPES[kind]}" for column, kind in family.guard_layout.own.items()
    )
    text = (
        f"UPDATE {_table(domain, family.guard)} AS held SET {family.group} = new.{family.group}, "  # noqa: S608
        "version = new.version, deleted = new.deleted "
        f"FROM json_to_recordset($1::json) AS new ({kinds}) "
        f"WHERE held.domain = new.domain AND held.{family.id} = new.{family.id}"
    )
    objects: Iterator[Mapping[str, Cell]] = (
        {
            "domain": domain,
            family.id: each,
            family.group: held.group,
            "version": held.version,
            "deleted": held.deleted,
        }
        for each, held in guards.items()
    )
    for array in _arrays(objects):
        await _run(connection, text, array)


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
    for kept, group in by_kept(lines).items():
        text = _upsert_text(domain, table, kept)
        for array in _arrays(cells(line, table.columns) for line in group):
            await _run(connection, text, array)


def _upsert_text(domain: str, table: Table, kept: frozenset[str]) -> str:
    """All columns are listed, so that what a row lacks becomes null."""
    columns = table.all_columns
    names = ", ".join(map(quoted, columns))
    given = ", ".join(
        f"new.{quoted(column)}{'::jsonb' if kind == 'json' else ''}"
        for column, kind in columns.items()
    )
    kinds = ", ".join(
        f"{quoted(column)} {'text' if kind == 'json' else _TYPES[kind]}"
        for column, kind in columns.items()
    )
    return (
        f"INSERT INTO {_table(domain, table.name)} ({names}) SELECT {given} "  # noqa: S608
        f"FROM json_to_recordset($1::json) AS new ({kinds}) {upsert_tail(table, kept)}"
    )


def _arrays(objects: Iterable[Mapping[str, Cell]]) -> Iterator[str]:
    """Yield JSON arrays of the objects, each of a size that PostgreSQL takes in a statement."""
    parts: list[bytes] = []
    size = 0
    for part in map(orjson.dumps, objects):
        if parts and size + len(part) > _STATEMENT_BYTES:
            yield _array(parts)
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    if parts:
        yield _array(parts)


def _array(parts: Sequence[bytes]) -> str:
    return f"[{b','.join(parts).decode()}]"


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
