"""Keys under the names that a subscriber knows them by."""

from collections.abc import Mapping

import pytest
from hypothesis import given, strategies as st

from schemas.errors import InvalidEventError
from schemas.values import Json
from sinks.renaming import Renaming, rename_problems
from tests.sinks.test_redaction import FORM, leaves, names, values


def renamed(value: Mapping[str, Json], rules: Mapping[str, str]) -> Json:
    return Renaming.of(rules).applied(value)


def test_nothing_is_renamed_unless_it_is_named() -> None:
    assert renamed(FORM, {}) is FORM


def test_a_path_names_a_key_from_the_outside_in_through_lists_and_stars() -> None:
    found = renamed(FORM, {"form.visit.phone": "telephone", "form.**.note": "remark"})
    assert found["form"]["visit"] == [
        {"telephone": "1", "remark": "x"},
        {"telephone": "2", "deeper": {"phone": ""}},
    ]
    assert found["form"]["case"] == FORM["form"]["case"]
    assert renamed(FORM, {"form": "answers", "form.name": "who"})["answers"]["who"] == "Ada Example"


def test_what_was_sent_goes_with_what_was_made_of_it() -> None:
    found = renamed(FORM, {"metadata.timeEnd": "end"})["metadata"]
    assert found == {"end": "canonical", "end_sent": "as sent", "username": "ada"}


@pytest.mark.parametrize("properties", [{"dob": "1", "born": "2"}, {"born": "2", "dob": "1"}])
def test_no_value_is_lost_under_another_ones_name(properties: Mapping[str, Json]) -> None:
    with pytest.raises(InvalidEventError) as refused:
        renamed({"properties": properties}, {"properties.dob": "born"})
    assert refused.value.cause == "mapping_failed"
    assert refused.value.path.startswith("properties.")
    swapped = {"properties.dob": "born", "properties.born": "dob"}
    assert renamed({"properties": properties}, swapped)["properties"] == {"born": "1", "dob": "2"}


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"a..b": "c"}, "is no path"),
        ({"a.*": "c"}, "names no key"),
        ({"a": "b.c"}, "gets no name"),
        ({"a": ""}, "gets no name"),
        ({"case_id": "id"}, "stays as it is"),
    ],
)
def test_what_cannot_be_a_name_is_a_problem(rules: Mapping[str, str], problem: str) -> None:
    (found,) = rename_problems(rules)
    assert problem in found


@given(value=st.dictionaries(names, values), path=st.lists(names, min_size=1, max_size=4))
def test_exactly_what_is_named_has_the_new_name(value: Mapping[str, Json], path: list[str]) -> None:
    length = len(path)

    def place(old: tuple[str, ...]) -> tuple[str, ...]:
        return (*path[:-1], "new", *old[length:]) if old[:length] == tuple(path) else old

    found = renamed(value, {".".join(path): "new"})
    assert list(leaves(found)) == [(place(old), leaf) for old, leaf in leaves(value)]
