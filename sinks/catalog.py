"""Which tables and columns a domain's database has, and which a batch needs (pure).

The table `cw_names` holds one row for each table and column that Casewire made; rows are only ever
added, so that their number tells whether a copy of them is the newest.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sinks.guard import Decision
from sinks.names import assigned, column_name, quoted, table_name
from sinks.rows import KEY, OWN_COLUMNS, Kind, Row

#: Columns for properties. PostgreSQL takes 1,600 in all, and counts those that were dropped.
COLUMN_LIMIT: Final = 1400

NAMES_TABLE: Final = "cw_names"
GUARD_TABLE: Final = "cases"

#: Columns of the table that holds the guard, whose key is the first two.
GUARD_COLUMNS: Final[Mapping[str, Kind]] = {
    "domain": "text",
    "case_id": "text",
    "case_type": "text",
    "version": "number",
    "deleted": "flag",
}


@dataclass(frozen=True, slots=True)
class Name:
    """A row of `cw_names`: a property's column, or a case type's table if `table` is empty."""

    table: str
    source: str
    name: str


@dataclass(frozen=True, slots=True)
class CaseTable:
    """`columns` maps properties to columns."""

    name: str
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_columns(self) -> Mapping[str, Kind]:
        return {**OWN_COLUMNS, **dict.fromkeys(self.columns.values(), "text")}


@dataclass(frozen=True, slots=True)
class Catalog:
    """`tables` is by case type, `entries` the number of rows of `cw_names`."""

    tables: Mapping[str, CaseTable]
    entries: int

    @classmethod
    def of(cls, names: Sequence[Name]) -> "Catalog":
        columns: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for name in names:
            columns[name.table][name.source] = name.name
        tables = {
            case_type: CaseTable(table, columns[table])
            for case_type, table in sorted(columns[""].items())
        }
        return cls(tables, len(names))

    def written(self, decision: Decision) -> Mapping[str, CaseTable]:
        """Return the tables that a decision writes, in the order of their names.

        A case that was never anything but gone may be held under a type that has no table.
        """
        found = {kind: self.tables[kind] for kind in decision.case_types if kind in self.tables}
        return dict(sorted(found.items(), key=lambda item: item[1].name))


def missing(rows: Iterable[Row], catalog: Catalog) -> Mapping[str, set[str]]:
    """Return the properties that lack a column by case type; an empty set lacks the table."""
    lacking: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.deleted:
            continue
        table = catalog.tables.get(row.case_type)
        if table is None:
            lacking[row.case_type].update(row.properties)
        elif len(table.columns) < COLUMN_LIMIT:
            unknown = row.properties.keys() - table.columns.keys()
            if unknown:
                lacking[row.case_type] |= unknown
    return lacking


def growth(lacking: Mapping[str, set[str]], catalog: Catalog) -> Sequence[Name]:
    """Return the names to add, tables before columns, so that nothing that fits is missing.

    What a table has no room for is left out: it goes into `cw_overflow`.
    """
    new = {case_type: table_name(case_type) for case_type in lacking.keys() - catalog.tables.keys()}
    taken = [GUARD_TABLE, NAMES_TABLE, *(table.name for table in catalog.tables.values())]
    tables = assigned(new, taken)
    names = [Name("", case_type, name) for case_type, name in sorted(tables.items())]
    for case_type, sources in sorted(lacking.items()):
        table = catalog.tables.get(case_type) or CaseTable(tables[case_type])
        room = COLUMN_LIMIT - len(table.columns)
        wanted = {
            source: column_name(source) for source in sorted(sources - table.columns.keys())[:room]
        }
        columns = assigned(wanted, [*OWN_COLUMNS, *table.columns.values()])
        names += [Name(table.name, source, name) for source, name in sorted(columns.items())]
    return names


def upsert_tail(columns: Iterable[str], kept: frozenset[str]) -> str:
    """Return the end of an upsert that sets all columns but the key and those that are kept."""
    changes = ", ".join(
        f"{quoted(column)} = excluded.{quoted(column)}"
        for column in columns
        if column not in KEY and column not in kept
    )
    return f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {changes}"


def by_kept(rows: Iterable[Row]) -> Mapping[frozenset[str], Sequence[Row]]:
    """Return the rows by the columns that they keep: one statement each."""
    groups: defaultdict[frozenset[str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.kept].append(row)
    return groups
