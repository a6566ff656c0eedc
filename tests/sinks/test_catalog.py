from hypothesis import given, strategies as st

from sinks.catalog import COLUMN_LIMIT, Catalog, Name, growth, missing
from sinks.rows import OWN_COLUMNS, case_row, cells
from tests.contract.rigs import case_state

NAMES = st.sets(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=6)
KINDS = st.sampled_from(["t", "T", "", "u"])


@given(batches=st.lists(st.lists(st.tuples(KINDS, NAMES), max_size=3), max_size=4))
def test_a_grown_catalog_lacks_nothing_and_renames_nothing(
    batches: list[list[tuple[str, set[str]]]],
) -> None:
    catalog = Catalog({}, 0)
    names: list[Name] = []
    for batch in batches:
        rows = [
            case_row(case_state("d", properties=dict.fromkeys(sources, "x") | {"case_type": kind}))
            for kind, sources in batch
        ]
        names += growth(missing(rows, catalog), catalog)
        grown = Catalog.of(names)
        assert missing(rows, grown) == {}
        for kind, table in catalog.tables.items():
            assert grown.tables[kind].name == table.name
            assert grown.tables[kind].columns.items() >= table.columns.items()
        catalog = grown
    tables = [table.name.casefold() for table in catalog.tables.values()]
    assert len(set(tables)) == len(tables)
    for table in catalog.tables.values():
        assert not table.columns.values() & OWN_COLUMNS.keys()


def test_what_a_full_table_has_no_column_for_is_in_one_json_text() -> None:
    many = {f"p{number:04}": str(number) for number in range(COLUMN_LIMIT + 10)}
    row = case_row(case_state("d", properties=many))
    empty = Catalog({}, 0)
    catalog = Catalog.of(growth(missing([row], empty), empty))
    table = catalog.tables["patient"]
    assert len(table.columns) == COLUMN_LIMIT
    assert missing([row], catalog) == {}
    overflow = cells(row, table.columns)["cw_overflow"]
    assert isinstance(overflow, str)
    assert overflow.count(":") == len(row.properties) - COLUMN_LIMIT


def test_a_case_that_is_gone_needs_no_table() -> None:
    assert missing([case_row(case_state("d", deleted=True))], Catalog({}, 0)) == {}
