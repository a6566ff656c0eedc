from typing import TypeAlias

from hypothesis import given, strategies as st

from schemas.values import Json
from sinks.catalog import COLUMN_LIMIT, Catalog, growth
from sinks.layout import CASES
from sinks.rows import Row, case_row, cells, form_row
from tests.contract.rigs import case_state, form_state

NAMES = st.sets(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=6)
KINDS = st.sampled_from(["t", "T", "", "u"])
FORM_NAMES = st.sampled_from(["a", "A", "b/", "@x", "#text", "case", "~", ""])
ANSWERS = st.recursive(
    st.sampled_from(["", "x"]) | st.none(),
    lambda inner: (
        st.dictionaries(FORM_NAMES, inner, max_size=3) | st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)
Batch: TypeAlias = list[Row]

EMPTY = Catalog.of([])


def case_rows(drawn: list[tuple[str, set[str]]]) -> Batch:
    return [
        case_row(case_state("d", properties=dict.fromkeys(sources, "x") | {"case_type": kind}))
        for kind, sources in drawn
    ]


def form_rows(drawn: list[tuple[str, dict[str, Json]]]) -> Batch:
    return [
        form_row(form_state("d", form=form | {"@xmlns": xmlns, "@name": "N"}))
        for xmlns, form in drawn
    ]


BATCHES = st.one_of(
    st.lists(st.tuples(KINDS, NAMES), max_size=3).map(case_rows),
    st.lists(st.tuples(KINDS, st.dictionaries(FORM_NAMES, ANSWERS, max_size=4)), max_size=3).map(
        form_rows
    ),
)


@given(batches=st.lists(BATCHES, max_size=4))
def test_a_grown_catalog_lacks_nothing_and_renames_nothing(batches: list[Batch]) -> None:
    catalog = EMPTY
    for rows in batches:
        grown = catalog.with_names(growth(rows, catalog).names)
        assert not grown.lacks(rows)
        assert not growth(rows, grown).names
        for group, table in catalog.tables.items():
            assert grown.tables[group].name == table.name
            assert grown.tables[group].columns.items() >= table.columns.items()
            assert grown.tables[group].repeats.keys() >= table.repeats.keys()
        catalog = grown
    tables = [table for each in catalog.tables.values() for table in each.all()]
    assert len({table.name.casefold() for table in tables}) == len(tables)
    for table in tables:
        columns = [column.casefold() for column in table.columns.values()]
        assert len(set(columns)) == len(columns)
        assert not set(columns) & table.layout.own.keys()


def test_what_a_full_table_has_no_column_for_is_in_one_json_text() -> None:
    many = {f"p{number:04}": str(number) for number in range(COLUMN_LIMIT + 10)}
    row = case_row(case_state("d", properties=many))
    catalog = EMPTY.with_names(growth([row], EMPTY).names)
    table = catalog.tables[CASES.group_of("patient")]
    assert len(table.columns) == COLUMN_LIMIT
    assert not catalog.lacks([row])
    overflow = cells(row.line, table.columns)["cw_overflow"]
    assert isinstance(overflow, str)
    assert overflow.count(":") == len(row.line.properties) - COLUMN_LIMIT


def test_what_is_gone_needs_no_table() -> None:
    rows = [case_row(case_state("d", deleted=True)), form_row(form_state("d", archived=True))]
    assert not EMPTY.lacks(rows)
    assert not growth(rows, EMPTY).names


def test_names_are_those_that_people_know() -> None:
    state = form_state(
        "d",
        form={
            "weight": {"@unit": "kg", "#text": "55"},
            "child": [{"name": "Ada"}, {"name": "Bo"}],
            "case": {"@case_id": "c1", "update": {"age": "4"}},
        },
    )
    row = form_row(state)
    (form,) = EMPTY.with_names(growth([row], EMPTY).names).tables.values()
    assert form.name.startswith("form_home_visit_")
    assert dict(form.columns) == {
        "weight": "weight", "weight/@unit": "weight__unit", "case/@case_id": "case__case_id",
    }  # fmt: skip
    assert {path: table.name for path, table in form.repeats.items()} == {
        "child": f"{form.name}__child"
    }
    assert dict(form.repeats["child"].columns) == {"name": "name"}
