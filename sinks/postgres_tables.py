"""A domain's schema in PostgreSQL: adding to it, and writing a batch.

A batch is one transaction a domain, right at READ COMMITTED with two workers on the same keys, as
happens around a rebalance: the guard rows are made and locked in one order first, and all that is
decided afterwards is decided under these locks. Tables and columns are added before, in a
transaction of their own: added after a write, they deadlock.

Rows travel as one JSON parameter: level with COPY at 2,000 rows a table, 1.7 times faster at 33,
and with no temporary table, so that a pooler in transaction mode will do.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson
from psycopg import AsyncConnection, AsyncCursor

from schemas.errors import TransientError
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
from sinks.guard import Decision, Held, OnDelete, decided
from sinks.names import quoted, shortened
from sinks.rows import KEY, OWN_COLUMNS, UNSAYABLE, Cell, Kind, Row, cells, filled

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


async def _begin(connection: Connection) -> None:
    """Bound the waiting for locks, and have the commit wait for the disk if it would not."""
    await connection.execute(
        "SELECT set_config('lock_timeout', $1, true), set_config('synchronous_commit', "
        "replace(current_setting('synchronous_commit'), 'off', 'on'), true)",
        [_LOCK_TIMEOUT],
    )


async def held_versions(
    connection: Connection, domain: str, case_ids: Sequence[str]
) -> Mapping[str, int]:
    """Return the versions that a domain's cases are held in; nothing of those that are new."""
    guards = _table(domain, GUARD_TABLE)
    made = await connection.execute("SELECT to_regclass($1) IS NOT NULL", [guards])
    if await made.fetchone() == (False,):
        return {}
    found = await connection.execute(
        f"SELECT case_id, version FROM {guards} WHERE domain = $1 AND case_id = ANY($2::text[])",  # noqa: S608
        [domain, list(case_ids)],
    )
    return {case_id: version for case_id, version in await found.fetchall() if version >= 0}


async def grown(connection: Connection, rows: Sequence[Row]) -> Catalog:
    """Add what the rows need of schema, tables and columns; return what there is then."""
    domain = rows[0].domain
    async with connection.transaction():
        await _begin(connection)
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtext('casewire'), hashtext($1))", [domain]
        )
        found = await connection.execute("SELECT to_regclass($1)", [_table(domain, NAMES_TABLE)])
        if await found.fetchone() == (None,):
            await _make_schema(connection, domain)
        names = await _names(connection, domain)
        catalog = Catalog.of(names)
        added = growth(missing(rows, catalog), catalog)
        for statement in _growth_texts(domain, added):
            await _run(connection, statement)
        if added:
            await _run(
                connection,
                f"INSERT INTO {_table(domain, NAMES_TABLE)} "  # noqa: S608
                "SELECT * FROM unnest($1::text[], $2::text[], $3::text[])",
                [name.table for name in added],
                [name.source for name in added],
                [name.name for name in added],
            )
    return Catalog.of([*names, *added])


async def _make_schema(connection: Connection, domain: str) -> None:
    """Make the schema unless an operator has, who then need not let us create any."""
    found = await connection.execute(
        "SELECT 1 FROM pg_namespace WHERE nspname = $1", [shortened(domain)]
    )
    if await found.fetchone() is None:
        await _run(connection, f"CREATE SCHEMA {quoted(shortened(domain))}")
    await _run(connection, _table_text(domain, GUARD_TABLE, GUARD_COLUMNS, ("domain", "case_id")))
    columns: Mapping[str, Kind] = dict.fromkeys(("table_name", "source", "name"), "text")
    await _run(connection, _table_text(domain, NAMES_TABLE, columns, ("table_name", "name")))


def _growth_texts(domain: str, added: Sequence[Name]) -> Sequence[str]:
    """Return one statement a table, in the order of their names, with all new columns."""
    new = {name.name for name in added if not name.table}
    columns: dict[str, list[str]] = {table: [] for table in new}
    for name in added:
        if name.table:
            columns.setdefault(name.table, []).append(name.name)
    texts = []
    for table, names in sorted(columns.items()):
        if table in new:
            kinds: Mapping[str, Kind] = {**OWN_COLUMNS, **dict.fromkeys(names, "text")}
            texts.append(_table_text(domain, table, kinds, KEY))
        else:
            parts = ", ".join(f"ADD COLUMN IF NOT EXISTS {quoted(name)} text" for name in names)
            texts.append(f"ALTER TABLE {_table(domain, table)} {parts}")
    return texts


def _table_text(domain: str, name: str, columns: Mapping[str, Kind], key: Sequence[str]) -> str:
    """Return CREATE TABLE. The key's index is named so that no case type's table can clash."""
    parts = [f"{quoted(column)} {_TYPES[kind]}" for column, kind in columns.items()]
    constraint = quoted(shortened(f"key_{name}"))
    return (
        f"CREATE TABLE {_table(domain, name)} "
        f"({', '.join(parts)}, CONSTRAINT {constraint} PRIMARY KEY ({', '.join(key)}))"
    )


async def applied(
    connection: Connection, rows: Sequence[Row], catalog: Catalog | None, on_delete: OnDelete
) -> tuple[Decision, Catalog]:
    """Write the rows of one domain, sorted by case id, within the caller's transaction."""
    domain = rows[0].domain
    await _begin(connection)
    held = await _locked(connection, rows)
    # Only under the locks: what another worker wrote to these cases, we have its columns.
    found = await _run(connection, f"SELECT count(*) FROM {_table(domain, NAMES_TABLE)}")  # noqa: S608
    if catalog is None or await found.fetchone() != (catalog.entries,):
        catalog = Catalog.of(await _names(connection, domain))
        if missing(rows, catalog):
            raise TransientError("the schema has become smaller: its tables will be made anew")
    decision = decided(rows, held, on_delete)
    await _write_guards(connection, domain, decision.guards)
    tables = catalog.written(decision)
    if tables:
        # In the order in which another worker may be adding columns to them.
        listed = ", ".join(_table(domain, table.name) for table in tables.values())
        await _run(connection, f"LOCK TABLE {listed} IN ROW EXCLUSIVE MODE")
    left: dict[str, Mapping[str, Cell]] = {}
    for case_type, table in tables.items():
        left |= await _removed(connection, domain, table, decision.removed.get(case_type, ()))
        await _mark(connection, domain, table, decision.marked.get(case_type, ()))
    for case_type, table in tables.items():
        upserts = decision.upserts.get(case_type, ())
        complete = [
            filled(row, left[row.case_id]) if row.case_id in left else row for row in upserts
        ]
        for kept, group in by_kept(complete).items():
            text = _upsert_text(domain, table, kept)
            for array in _arrays(cells(row, table.columns) for row in group):
                await _run(connection, text, array)
    return decision, catalog


async def _locked(connection: Connection, rows: Sequence[Row]) -> Mapping[str, Held]:
    """Make and lock the rows' guards; return what was held. New ones have version -1."""
    domain, case_ids = rows[0].domain, [row.case_id for row in rows]
    guards = _table(domain, GUARD_TABLE)
    await _run(
        connection,
        f"INSERT INTO {guards} (domain, case_id, case_type, version, deleted) "  # noqa: S608
        "SELECT $1, new, '', -1, true FROM unnest($2::text[]) AS new "
        "ON CONFLICT (domain, case_id) DO NOTHING",
        domain,
        case_ids,
    )
    found = await _run(
        connection,
        f"SELECT case_id, case_type, version, deleted FROM {guards} "  # noqa: S608
        "WHERE domain = $1 AND case_id = ANY($2::text[]) ORDER BY case_id FOR UPDATE",
        domain,
        case_ids,
    )
    held = {case_id: Held(*rest) for case_id, *rest in await found.fetchall()}
    return {case_id: guard for case_id, guard in held.items() if guard.version >= 0}


async def _write_guards(connection: Connection, domain: str, guards: Mapping[str, Held]) -> None:
    kinds = ", ".join(f"{column} {_TYPES[kind]}" for column, kind in GUARD_COLUMNS.items())
    text = (
        f"UPDATE {_table(domain, GUARD_TABLE)} AS held SET case_type = new.case_type, "  # noqa: S608
        "version = new.version, deleted = new.deleted "
        f"FROM json_to_recordset($1::json) AS new ({kinds}) "
        "WHERE held.domain = new.domain AND held.case_id = new.case_id"
    )
    objects: Iterator[Mapping[str, Cell]] = (
        {
            "domain": domain,
            "case_id": case_id,
            "case_type": held.case_type,
            "version": held.version,
            "deleted": held.deleted,
        }
        for case_id, held in guards.items()
    )
    for array in _arrays(objects):
        await _run(connection, text, array)


async def _removed(
    connection: Connection, domain: str, table: CaseTable, case_ids: Sequence[str]
) -> Mapping[str, Mapping[str, Cell]]:
    """Delete rows, and return what they held in the columns that a state may keep."""
    if not case_ids:
        return {}
    kept = ", ".join(f"{column}::text" for column in UNSAYABLE)
    found = await _run(
        connection,
        f"DELETE FROM {_table(domain, table.name)} "  # noqa: S608
        f"WHERE cw_domain = $1 AND cw_case_id = ANY($2::text[]) RETURNING cw_case_id, {kept}",
        domain,
        case_ids,
    )
    return {
        case_id: dict(zip(UNSAYABLE, texts, strict=True))
        for case_id, *texts in await found.fetchall()
    }


async def _mark(
    connection: Connection, domain: str, table: CaseTable, case_ids: Sequence[str]
) -> None:
    if case_ids:
        await _run(
            connection,
            f"UPDATE {_table(domain, table.name)} SET cw_deleted = true "  # noqa: S608
            "WHERE cw_domain = $1 AND cw_case_id = ANY($2::text[])",
            domain,
            case_ids,
        )


def _upsert_text(domain: str, table: CaseTable, kept: frozenset[str]) -> str:
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
        f"FROM json_to_recordset($1::json) AS new ({kinds}) {upsert_tail(columns, kept)}"
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
    found = await _run(connection, f"SELECT table_name, source, name FROM {names}")  # noqa: S608
    return [Name(*row) for row in await found.fetchall()]


async def _run(
    connection: Connection, text: str, *arguments: str | Sequence[str]
) -> AsyncCursor[Any]:
    """Run a statement whose text holds names: they are quoted, and all values are `arguments`."""
    return await connection.execute(text.encode(), arguments)


def _table(domain: str, name: str) -> str:
    return f"{quoted(shortened(domain))}.{quoted(name)}"
