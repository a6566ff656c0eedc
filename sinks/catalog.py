"""Which tables and columns a domain's database has, and which a batch needs (pure).

The table `cw_names` holds one row for each table and column that Casewire made; rows are only ever
added, so that their number tells whether a copy of them is the newest.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from sinks.answers import TEXT, enclosing
from sinks.guard import Decision
from sinks.layout import FAMILIES, REPEAT_LAYOUT, Group, Kind, Layout
from sinks.names import (
    answer_name,
    assigned,
    column_name,
    form_table_name,
    quoted,
    repeat_table_name,
    table_name,
)
from sinks.rows import Cell, Line, Row, filled

NameKind: TypeAlias = Literal["case", "form", "repeat", "column"]

#: Columns for properties. PostgreSQL takes 1,600 in all, and counts those that were dropped.
COLUMN_LIMIT: Final = 1400

NAMES_TABLE: Final = "cw_names"
#: Columns of the table of names. The first is the key: 1 for the first name, and so on.
NAMES_LAYOUT: Final = Layout(
    ("number",),
    {
        "number": "number",
        "table_name": "text",
        "kind": "text",
        "source": "text",
        "name": "text",
    },
)


@dataclass(frozen=True, slots=True)
class Name:
    """A row of `cw_names`: what the sender calls something, and its name here.

    `kind` is `case` (a case type's table) and `form` (an xmlns's), which belong to no `table`;
    `repeat` (the table of a path in that form's), or `column` (that of a property or answer).
    """

    table: str
    kind: NameKind
    source: str
    name: str


@dataclass(frozen=True, slots=True)
class Table:
    """`columns` maps properties to columns, `repeats` the paths of a form's repeats to tables."""

    name: str
    layout: Layout
    columns: Mapping[str, str] = field(default_factory=dict)
    repeats: Mapping[str, "Table"] = field(default_factory=dict)

    @property
    def all_columns(self) -> Mapping[str, Kind]:
        return {**self.layout.own, **dict.fromkeys(self.columns.values(), "text")}

    def at(self, path: str) -> "Table | None":
        """Return the table of a repeat, or at "" this one."""
        return self.repeats.get(path) if path else self

    def all(self) -> Iterator["Table"]:
        """Yield this table and those of its repeats."""
        yield self
        yield from self.repeats.values()


@dataclass(frozen=True, slots=True)
class Move:
    """What has to be moved when a path of a form's turns out to be a repeat.

    Single objects at the path were columns of the table `source` (`columns`: theirs to the new
    ones in `target`), and end as rows of `target` whose place is the source row's and `steps`.
    `inner` are the tables of repeats further in: they may know of objects that have no columns,
    and the rows of `adopted` get a new parent. Places have one part for each part of a path:
    `depth` of `target`, `outer_depth` of `source`.
    """

    source: str
    target: str
    columns: Mapping[str, str]
    steps: str
    depth: int
    outer_depth: int
    inner: Sequence[str]
    adopted: Sequence[str]


@dataclass(frozen=True, slots=True)
class Growth:
    """The names to add, tables before their columns, and the moves to make then, in order."""

    names: Sequence[Name]
    moves: Sequence[Move]


@dataclass(frozen=True, slots=True)
class Catalog:
    """`tables` is by what has one: a case type, a form."""

    names: Sequence[Name]
    tables: Mapping[Group, Table]

    @classmethod
    def of(cls, names: Sequence[Name]) -> "Catalog":
        columns: defaultdict[str, dict[str, str]] = defaultdict(dict)
        repeats: defaultdict[str, dict[str, Table]] = defaultdict(dict)
        for each in names:
            if each.kind == "column":
                columns[each.table][each.source] = each.name
        for each in names:
            if each.kind == "repeat":
                table = Table(each.name, REPEAT_LAYOUT, columns[each.name])
                repeats[each.table][each.source] = table
        return cls(
            names,
            {
                (each.kind, each.source): Table(
                    each.name, FAMILIES[each.kind].layout, columns[each.name], repeats[each.name]
                )
                for each in names
                if each.kind in ("case", "form")
            },
        )

    def with_names(self, names: Iterable[Name]) -> "Catalog":
        return Catalog.of([*self.names, *names])

    def lacks(self, row: Row) -> bool:
        """Whether a row needs more than there is. One of what is gone needs nothing."""
        if row.deleted:
            return False
        table = self.tables.get(row.family.group_of(row.group))
        return table is None or any(
            _lacks(table.at(path), line)
            for path, lines in row.lines(table.repeats).items()
            for line in lines
        )

    def written(self, decision: Decision) -> Mapping[Group, Table]:
        """Return the tables that a decision writes, in the order of their names.

        A case that was never anything but gone may be held under a type that has no table.
        """
        found = {group: self.tables[group] for group in decision.groups if group in self.tables}
        return dict(sorted(found.items(), key=lambda item: item[1].name))


def growth(rows: Sequence[Row], catalog: Catalog) -> Growth:
    """Return what is to be added so that no row that fits lacks anything.

    What a table has no room for is left out: it goes into `cw_overflow`.
    """
    living = [row for row in rows if not row.deleted]
    before = len(catalog.names)
    catalog = catalog.with_names(_new_tables(living, catalog))
    moves: list[Move] = []
    for group, path in _new_repeats(living, catalog):
        names, move = _repeat(catalog.tables[group], path, catalog)
        catalog = catalog.with_names(names)
        moves.append(move)
    catalog = catalog.with_names(_new_columns(living, catalog))
    return Growth(catalog.names[before:], moves)


def _lacks(table: Table | None, line: Line) -> bool:
    if table is None:
        return True
    unknown = not line.properties.keys() <= table.columns.keys()
    return unknown and len(table.columns) < COLUMN_LIMIT


def _new_tables(rows: Iterable[Row], catalog: Catalog) -> Sequence[Name]:
    wanted: dict[Group, str] = {}
    for row in sorted(rows, key=lambda row: (not row.title, row.title)):
        group = row.family.group_of(row.group)
        if group not in catalog.tables and group not in wanted:
            wanted[group] = (
                table_name(row.group)
                if row.family.state == "case"
                else form_table_name(row.group, row.title)
            )
    names: list[Name] = []
    taken = [*_taken_tables(catalog)]
    for state in ("case", "form"):
        of_state = {source: name for (kind, source), name in wanted.items() if kind == state}
        given = assigned(of_state, taken)
        taken += given.values()
        names += [Name("", state, source, name) for source, name in sorted(given.items())]
    return names


def _taken_tables(catalog: Catalog) -> Iterator[str]:
    yield from (NAMES_TABLE, *(family.guard for family in FAMILIES.values()))
    yield from (each.name for each in catalog.names if each.kind != "column")


def _new_repeats(rows: Iterable[Row], catalog: Catalog) -> Sequence[tuple[Group, str]]:
    """Return the forms' paths that have lists and no table, outer ones first."""
    found = set()
    for row in rows:
        group = row.family.group_of(row.group)
        repeats = catalog.tables[group].repeats
        found |= {(group, path) for path in row.lines(repeats) if path and path not in repeats}
    return sorted(found, key=lambda each: (each[0], each[1].count("/"), each[1]))


def _repeat(form: Table, path: str, catalog: Catalog) -> tuple[Sequence[Name], Move]:
    """Return the names of a new repeat's table and of the columns that it takes over."""
    outer = enclosing(path, form.repeats)
    source = form.at(outer) or form
    wanted = {path: repeat_table_name(form.name, path)}
    target = assigned(wanted, _taken_tables(catalog))[path]
    own = path[len(outer) + 1 :] if outer else path
    taken = {
        TEXT if each == own else each[len(own) + 1 :]: column
        for each, column in source.columns.items()
        if each == own or each.startswith(own + "/")
    }
    names = [Name(form.name, "repeat", path, target)]
    names += _columns(Table(target, REPEAT_LAYOUT), taken)
    new = {each.source: each.name for each in names[1:]}
    inner = {each: table for each, table in form.repeats.items() if each.startswith(path + "/")}
    return names, Move(
        source=source.name,
        target=target,
        columns={column: new[each] for each, column in taken.items()},
        steps="".join(f"/{part}[1]" for part in own.split("/")),
        depth=path.count("/") + 1,
        outer_depth=outer.count("/") + 1 if outer else 0,
        inner=[table.name for table in inner.values()],
        adopted=[
            table.name
            for each, table in inner.items()
            if enclosing(each, [*form.repeats, path]) == path
        ],
    )


def _new_columns(rows: Iterable[Row], catalog: Catalog) -> Iterator[Name]:
    lacking: defaultdict[tuple[Group, str], set[str]] = defaultdict(set)
    for row in rows:
        group = row.family.group_of(row.group)
        for path, lines in row.lines(catalog.tables[group].repeats).items():
            for line in lines:
                lacking[group, path] |= line.properties.keys()
    for (group, path), sources in sorted(lacking.items()):
        table = catalog.tables[group].at(path)
        if table is not None:
            yield from _columns(table, sources - table.columns.keys())


def _columns(table: Table, sources: Iterable[str]) -> Sequence[Name]:
    """Return the names of new columns, as many as the table has room for."""
    room = COLUMN_LIMIT - len(table.columns)
    name_of = column_name if table.layout is FAMILIES["case"].layout else answer_name
    wanted = {source: name_of(source) for source in sorted(sources)[:room]}
    columns = assigned(wanted, [*table.layout.own, *table.columns.values()])
    return [Name(table.name, "column", *each) for each in sorted(columns.items())]


def upsert_tail(table: Table, kept: frozenset[str]) -> str:
    """Return the end of an upsert that sets all columns but the key and those that are kept."""
    key = table.layout.key
    changes = ", ".join(
        f"{quoted(column)} = excluded.{quoted(column)}"
        for column in table.all_columns
        if column not in key and column not in kept
    )
    return f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"


def lines_of(
    rows: Iterable[Row], table: Table, left: Mapping[str, Mapping[str, Cell]]
) -> Mapping[str, Sequence[Line]]:
    """Return the lines of rows by the path of their table, those of the table itself first.

    `left`: what rows that have left another table held, by id.
    """
    lines: defaultdict[str, list[Line]] = defaultdict(list)
    for row in rows:
        for path, found in row.lines(table.repeats).items():
            held = None if path else left.get(row.id)
            lines[path] += found if held is None else [filled(line, held) for line in found]
    return dict(sorted(lines.items()))


def by_kept(lines: Iterable[Line]) -> Mapping[frozenset[str], Sequence[Line]]:
    """Return the lines by the columns that they keep: one statement each."""
    groups: defaultdict[frozenset[str], list[Line]] = defaultdict(list)
    for line in lines:
        groups[line.kept].append(line)
    return groups
