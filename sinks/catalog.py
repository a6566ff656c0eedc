"""Which tables and columns a domain's database has, and which a batch needs (pure).

The table `cw_names` holds one row for each table and column that Casewire made; rows are only ever
added, so that their number tells whether a copy of them is the newest.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from schemas.errors import TargetError
from sinks.answers import TEXT, enclosing
from sinks.guard import Decision
from sinks.layout import FAMILIES, REPEAT_LAYOUT, Group, Kind, Layout
from sinks.names import (
    answer_name,
    assigned,
    column_name,
    form_table_name,
    index_view_name,
    quoted,
    repeat_table_name,
    shortened,
    table_name,
)
from sinks.rows import Cell, Line, Row, filled
from sinks.typed import TypedKind, kinds_of

NameKind: TypeAlias = Literal["case", "form", "repeat", "column", "view", "index"] | TypedKind

#: Columns for properties. PostgreSQL takes 1,600 in all, and counts those that were dropped.
COLUMN_LIMIT: Final = 1400
#: Typed columns of a view, which may have no more columns than a table.
TYPED_LIMIT: Final = 150
#: Lines of a batch, of each table, that are looked at for typed columns.
_SAMPLE: Final = 8
_TYPED: Final = frozenset(get_args(TypedKind))
_COLUMNS: Final = _TYPED | {"column"}

NAMES_TABLE: Final = "cw_names"
#: Of the tables that a sink makes, and of what is in them: in SQLite's `user_version`, and in
#: PostgreSQL's comment on `cw_names`. Tables and columns that are added by themselves do not count.
SQL_FORMAT: Final = 1


def require_format(found: int, where: str) -> None:
    """Raise TargetError for tables that a newer Casewire has made."""
    if found > SQL_FORMAT:
        raise TargetError(
            f"{where} has tables of format {found}, and this Casewire knows format {SQL_FORMAT}: "
            "run the newer Casewire that made them, or name another database"
        )


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
    `repeat` (the table of a path in that form's); `column` (that of a property or answer), or
    `number`, `date` and so on for one of the typed view, which is `view`; and `index`, the view of
    an index, whose `source` is its identifier and the parent's type.
    """

    table: str
    kind: NameKind
    source: str
    name: str


@dataclass(frozen=True, slots=True)
class Table:
    """`columns` maps properties to columns, `repeats` the paths of a form's repeats to tables.

    `others` are the names of the rest by kind and source, `shown` those of the typed view's
    columns, in its order.
    """

    name: str
    layout: Layout
    columns: Mapping[str, str] = field(default_factory=dict)
    repeats: Mapping[str, "Table"] = field(default_factory=dict)
    others: Mapping[tuple[NameKind, str], str] = field(default_factory=dict)
    shown: Sequence[Name] = ()

    @classmethod
    def of(
        cls, name: str, layout: Layout, names: Sequence[Name], repeats: Mapping[str, "Table"]
    ) -> "Table":
        return cls(
            name,
            layout,
            {each.source: each.name for each in names if each.kind == "column"},
            repeats,
            {(each.kind, each.source): each.name for each in names if each.kind != "column"},
            [each for each in names if each.kind in _COLUMNS],
        )

    @property
    def view(self) -> str:
        """The name of the typed view."""
        return self.others["view", ""]

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
        within: defaultdict[str, list[Name]] = defaultdict(list)
        repeats: defaultdict[str, dict[str, Table]] = defaultdict(dict)
        for each in names:
            within[each.table].append(each)
        for each in names:
            if each.kind == "repeat":
                table = Table.of(each.name, REPEAT_LAYOUT, within[each.name], {})
                repeats[each.table][each.source] = table
        tables: dict[Group, Table] = {}
        for each in within[""]:
            if each.kind == "case" or each.kind == "form":  # noqa: PLR1714 - mypy knows it so
                layout = FAMILIES[each.kind].layout
                table = Table.of(each.name, layout, within[each.name], repeats[each.name])
                tables[each.kind, each.source] = table
        return cls(names, tables)

    def by_name(self) -> Mapping[str, Table]:
        """Return all tables, those of repeats too."""
        return {table.name: table for each in self.tables.values() for table in each.all()}

    def suffices(self, rows: Sequence[Row]) -> bool:
        """Whether rows need no more than there is, and show no new kind of value."""
        return not self.lacks(rows) and next(_new_typed(rows, self), None) is None

    def with_names(self, names: Iterable[Name]) -> "Catalog":
        return Catalog.of([*self.names, *names])

    def lacks(self, rows: Iterable[Row]) -> bool:
        """Whether rows need more than there is. Those of what is gone need nothing."""
        living: defaultdict[Group, list[Row]] = defaultdict(list)
        for row in rows:
            if not row.deleted:
                living[row.family.group_of(row.group)].append(row)
        return any(_lacks(self.tables.get(group), some) for group, some in living.items())

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
    for add in (_new_columns, _new_indices, _new_views, _new_typed_names):
        catalog = catalog.with_names(add(living, catalog))
    return Growth(catalog.names[before:], moves)


def _lacks(table: Table | None, rows: Sequence[Row]) -> bool:
    if table is None or any(
        ("index", each) not in table.others for each in {e for row in rows for e in row.indices}
    ):
        return True
    return any(
        _lacks_columns(table.at(path), lines) for path, lines in lines_of(rows, table, {}).items()
    )


def _lacks_columns(table: Table | None, lines: Sequence[Line]) -> bool:
    if table is None:
        return True
    named = set[str]().union(*[line.properties for line in lines])
    return not named <= table.columns.keys() and len(table.columns) < COLUMN_LIMIT


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
    yield from (each.name for each in catalog.names if each.kind not in _COLUMNS)


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
    columns = assigned(wanted, _taken_columns(table))
    return [Name(table.name, "column", *each) for each in sorted(columns.items())]


def _taken_columns(table: Table) -> Sequence[str]:
    return [*table.layout.own, *(each.name for each in table.shown)]


def _new_indices(rows: Iterable[Row], catalog: Catalog) -> Iterator[Name]:
    taken = [*_taken_tables(catalog)]
    found = {(row.family.group_of(row.group), each) for row in rows for each in row.indices}
    for group, source in sorted(found):
        table = catalog.tables[group]
        if ("index", source) not in table.others:
            wanted = {source: index_view_name(group[1], source)}
            view = assigned(wanted, taken)[source]
            taken.append(view)
            yield Name(table.name, "index", source, view)


def _new_views(_: Iterable[Row], catalog: Catalog) -> Iterator[Name]:
    taken = [*_taken_tables(catalog)]
    for name, table in sorted(catalog.by_name().items()):
        if ("view", "") not in table.others:
            view = assigned({"": shortened(f"{name}_typed")}, taken)[""]
            taken.append(view)
            yield Name(name, "view", "", view)


def _new_typed_names(rows: Sequence[Row], catalog: Catalog) -> Iterator[Name]:
    found: defaultdict[str, set[tuple[TypedKind, str]]] = defaultdict(set)
    for name, kind, source in _new_typed(rows, catalog):
        found[name].add((kind, source))
    tables = catalog.by_name()
    for name, typed in sorted(found.items()):
        taken = [*_taken_columns(tables[name])]
        for kind, source in sorted(typed)[: TYPED_LIMIT - _typed_columns(tables[name])]:
            wanted = {source: shortened(f"{tables[name].columns[source]}__{kind}")}
            column = assigned(wanted, taken)[source]
            taken.append(column)
            yield Name(name, kind, source, column)


def _new_typed(rows: Sequence[Row], catalog: Catalog) -> Iterator[tuple[str, TypedKind, str]]:
    """Yield table, kind and source of what some of the rows show, and no typed column does."""
    for row in rows[:: max(1, len(rows) // _SAMPLE)]:
        table = catalog.tables.get(row.family.group_of(row.group))
        if table is None or row.deleted:
            continue
        for path, lines in row.lines(table.repeats).items():
            if (inner := table.at(path)) is not None and _typed_columns(inner) < TYPED_LIMIT:
                for line in lines[:_SAMPLE]:
                    yield from _typed_of(line, inner)


def _typed_of(line: Line, table: Table) -> Iterator[tuple[str, TypedKind, str]]:
    for source, text in line.properties.items():
        for kind in kinds_of(text):
            if (kind, source) not in table.others and source in table.columns:
                yield table.name, kind, source


def _typed_columns(table: Table) -> int:
    return len(table.shown) - len(table.columns)


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
