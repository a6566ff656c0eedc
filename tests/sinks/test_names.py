from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from sinks.names import NAME_LIMIT, OWN_PREFIX, assigned, column_name, shortened, table_name

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
WIDE = TEXT | st.text("aA🙂é\0_", min_size=50, max_size=100) | st.sampled_from(["xmin", "cw_x", ""])


@given(source=WIDE)
@pytest.mark.parametrize("name_of", [column_name, table_name])
def test_names_are_what_a_database_takes(name_of: Callable[[str], str], source: str) -> None:
    name = name_of(source)
    assert 0 < len(name.encode()) <= NAME_LIMIT
    assert "\0" not in name
    assert not name.casefold().startswith(OWN_PREFIX)


@given(sources=st.sets(WIDE), taken=st.lists(TEXT, max_size=3))
def test_no_two_sources_share_a_name(sources: set[str], taken: list[str]) -> None:
    names = assigned({source: column_name(source) for source in sources}, taken)
    assert names.keys() == sources
    folded = [name.casefold() for name in names.values()]
    assert len(set(folded)) == len(folded)
    assert not set(folded) & {name.casefold() for name in taken}
    assert all(len(name.encode()) <= NAME_LIMIT for name in names.values())


@given(sources=st.lists(WIDE, unique=True))
def test_names_do_not_depend_on_the_order_of_sources(sources: list[str]) -> None:
    wanted = {source: column_name(source) for source in sources}
    backwards = dict(reversed(wanted.items()))
    assert assigned(wanted, ["a"]) == assigned(backwards, ["a"])


@pytest.mark.parametrize("name", ["age", "order", "a b", "%", '"', "🙂", "Foo", "x" * 63])
def test_a_property_keeps_its_name_where_a_database_takes_it(name: str) -> None:
    assert column_name(name) == name


def test_of_two_that_differ_in_case_only_the_lower_keeps_its_name() -> None:
    names = assigned({"Foo": "Foo", "foo": "foo"}, [])
    assert names["foo"] == "foo"
    assert names["Foo"].startswith("Foo_")


def test_a_name_is_cut_between_characters_and_tells_the_rest_by_a_digest() -> None:
    one, other = shortened("🙂" * 40 + "a"), shortened("🙂" * 40 + "b")
    assert one.startswith("🙂" * 13 + "_")
    assert one != other


def test_cases_without_a_type_have_a_table() -> None:
    assert table_name("") == "case_without_type"
