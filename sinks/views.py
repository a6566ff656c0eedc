"""SQL of the views beside tables: typed columns, and who is whose parent (pure)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sinks.catalog import Catalog, Name, Table
from sinks.names import quoted
from sinks.typed import DATE, NUMBER, POINT, TIME, TypedKind

_ZONED: Final = (
    "CASE WHEN {0} GLOB '*[T ]*[+-][0-9][0-9]' THEN {0} || ':00' "
    "WHEN {0} GLOB '*[T ]*[+-][0-9][0-9][0-9][0-9]' "
    "THEN substr({0}, 1, length({0}) - 2) || ':' || substr({0}, -2) ELSE {0} END"
)
_IN_RANGE: Final = (
    "{0} GLOB '*[0-9].[0-9]* *[0-9].[0-9]*' AND {0} NOT GLOB '*[^0-9. -]*' "
    "AND abs(CAST({0} AS REAL)) <= 90 "
    "AND abs(CAST(substr({0}, instr({0}, ' ') + 1) AS REAL)) <= 180"
)

#: SQLite has no regular expressions, and its own date functions give null for what is none.
_SQLITE: Final[Mapping[str, str]] = {
    "number": (
        "CASE WHEN ltrim({0}, '-') GLOB '[0-9]*' AND {0} NOT GLOB '*[^0-9.-]*' "
        "AND {0} NOT GLOB '?*-*' AND {0} NOT GLOB '*.*.*' AND {0} NOT GLOB '*.' "
        "AND ltrim({0}, '-') NOT GLOB '0[0-9]*' THEN CAST({0} AS NUMERIC) END"
    ),
    "date": (
        "CASE WHEN {0} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]' AND {0} >= '0001' "
        "AND date({0}, '+0 days') = {0} THEN {0} END"
    ),
    "time": (
        "CASE WHEN {0} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][T ][0-9]*' "
        "AND substr({0}, 12, 2) < '24' "
        "AND {0} >= '0001' AND date(substr({0}, 1, 10), '+0 days') = substr({0}, 1, 10) "
        f"THEN strftime('%Y-%m-%dT%H:%M:%fZ', {_ZONED}) END"
    ),
    "latitude": f"CASE WHEN {_IN_RANGE} THEN CAST({{0}} AS REAL) END",
    "longitude": (
        f"CASE WHEN {_IN_RANGE} THEN CAST(substr({{0}}, instr({{0}}, ' ') + 1) AS REAL) END"
    ),
}

_RETURNS: Final[Mapping[TypedKind, str]] = {
    "number": "numeric",
    "date": "date",
    "time": "timestamptz",
    "latitude": "double precision",
    "longitude": "double precision",
}
_LAST_DAY: Final = (
    "extract(day FROM make_date(left(value, 4)::int, substr(value, 6, 2)::int, 1) "
    "+ interval '1 month - 1 day')"
)
_POSTGRES: Final[Mapping[TypedKind, str]] = {
    "number": f"CASE WHEN value ~ '{NUMBER}' THEN value::numeric END",
    "date": (
        f"CASE WHEN value ~ '{DATE}' THEN "
        f"CASE WHEN right(value, 2)::int <= {_LAST_DAY} THEN value::date END END"
    ),
    "time": (
        f"CASE WHEN value ~ '{TIME}' THEN "
        "CASE WHEN {schema}.cw_date(left(value, 10)) IS NOT NULL THEN "
        "(value || CASE WHEN value ~ '[T ].*[Z+-]' THEN '' ELSE 'Z' END)::timestamptz END END"
    ),
    "latitude": f"CASE WHEN value ~ '{POINT}' THEN split_part(value, ' ', 1)::float8 END",
    "longitude": f"CASE WHEN value ~ '{POINT}' THEN split_part(value, ' ', 2)::float8 END",
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a database writes a view.

    `table` gives a name as SQL text, `typed` an expression for a kind of a column. `create` is how
    the statement begins, `indices` what yields the `key` and `value` of each index of a case, and
    `inner` gives a text within such a value.
    """

    table: Callable[[str], str]
    typed: Callable[[str, str], str]
    create: str
    indices: str
    inner: Callable[[str], str]


def sqlite() -> Dialect:
    return Dialect(
        table=quoted,
        typed=lambda kind, column: _SQLITE[kind].format(column),
        create="CREATE VIEW",
        indices="json_each(child.cw_indices)",
        inner=lambda key: f"json_extract(held.value, '$.{key}')",
    )


def postgres(schema: str) -> Dialect:
    """Return PostgreSQL's way; `schema` is SQL text."""
    return Dialect(
        table=lambda name: f"{schema}.{quoted(name)}",
        typed=lambda kind, column: f"{schema}.cw_{kind}({column})",
        create="CREATE OR REPLACE VIEW",
        indices="jsonb_each(child.cw_indices)",
        inner=lambda key: f"(held.value ->> '{key}')",
    )


def postgres_functions(schema: str) -> Iterator[str]:
    """Yield what makes the functions that typed views call: null for a text that is none."""
    for kind, body in _POSTGRES.items():
        text = body.replace("{schema}", schema)
        yield (
            f"CREATE OR REPLACE FUNCTION {schema}.cw_{kind}(value text) RETURNS {_RETURNS[kind]} "
            f"LANGUAGE sql STABLE AS $cw$ SELECT {text} $cw$"
        )


def view_texts(
    added: Sequence[Name], catalog: Catalog, dialect: Dialect
) -> Iterator[tuple[str, str]]:
    """Yield the views that the added names ask for: name, and the statement that makes it.

    Columns only ever come after those that are there: PostgreSQL replaces a view then, whatever
    has been built on it.
    """
    tables = catalog.by_name()
    for name in sorted({each.table for each in added} & tables.keys()):
        table = tables[name]
        yield table.view, _typed_text(table, dialect)
    for each in added:
        if each.kind == "index":
            yield each.name, _index_text(each, dialect)


def _typed_text(table: Table, dialect: Dialect) -> str:
    columns = [quoted(column) for column in table.layout.own]
    for shown in table.shown:
        column = quoted(table.columns[shown.source])
        expression = column if shown.kind == "column" else dialect.typed(shown.kind, column)
        columns.append(f"{expression} AS {quoted(shown.name)}")
    return (
        f"{dialect.create} {dialect.table(table.view)} AS "  # noqa: S608
        f"SELECT {', '.join(columns)} FROM {dialect.table(table.name)}"
    )


def _index_text(index: Name, dialect: Dialect) -> str:
    identifier, _, parent_type = index.source.partition("/")
    return (
        f"{dialect.create} {dialect.table(index.name)} AS "  # noqa: S608
        "SELECT child.cw_domain, child.cw_case_id AS cw_child_id, "
        f"{dialect.inner('case_id')} AS cw_parent_id, held.key AS cw_index, "
        f"{dialect.inner('relationship')} AS cw_relationship "
        f"FROM {dialect.table(index.table)} AS child CROSS JOIN {dialect.indices} AS held "
        f"WHERE held.key = {_literal(identifier)} "
        f"AND {dialect.inner('case_type')} = {_literal(parent_type)} AND NOT child.cw_deleted"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
