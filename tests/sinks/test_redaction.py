"""What a subscriber is not to see."""

from collections.abc import Iterator, Mapping, Sequence

import orjson
import pytest
from hypothesis import given, strategies as st

from schemas.values import Json
from sinks.redaction import Redaction, path_problems

KEY = "a key of sixteen and more characters"

FORM: Mapping[str, Json] = {
    "id": "f1",
    "form": {
        "name": "Ada Example",
        "visit": [{"phone": "1", "note": "x"}, {"phone": "2", "deeper": {"phone": ""}}],
        "case": {"@case_id": "c1", "update": {"phone": ["3", None]}},
    },
    "metadata": {"timeEnd": "canonical", "timeEnd_sent": "as sent", "username": "ada"},
}


def redacted(*, drop: Sequence[str] = (), hashed: Sequence[str] = ()) -> Json:
    return Redaction.of(drop, hashed, KEY).applied(FORM)


def test_nothing_is_hidden_unless_it_is_named() -> None:
    assert redacted() is FORM


def test_a_path_names_a_key_from_the_outside_in() -> None:
    left = redacted(drop=["form.name", "metadata.username", "form.phone", "nothing.there"])
    assert "name" not in left["form"]
    assert "username" not in left["metadata"]
    assert left["form"]["visit"] == FORM["form"]["visit"]


def test_lists_are_gone_through_and_stars_stand_for_keys() -> None:
    assert redacted(drop=["form.visit.phone"])["form"]["visit"] == [
        {"note": "x"}, {"deeper": {"phone": ""}},
    ]  # fmt: skip
    assert redacted(drop=["form.*.phone"])["form"]["visit"][1] == {"deeper": {"phone": ""}}
    assert b"phone" not in orjson.dumps(redacted(drop=["**.phone"]))
    assert redacted(drop=["*"]) == {}


def test_what_was_sent_goes_with_what_was_made_of_it() -> None:
    assert redacted(drop=["metadata.timeEnd"])["metadata"] == {"username": "ada"}
    left = redacted(hashed=["metadata.timeEnd"])["metadata"]
    assert len(left["timeEnd"]) == len(left["timeEnd_sent"]) == 64


def test_a_hash_is_the_same_for_the_same_value_and_key_only() -> None:
    visits = redacted(hashed=["**.phone", "form.name"])["form"]["visit"]
    again = Redaction.of([], ["**.phone"], KEY).applied({"phone": "1"})
    other = Redaction.of([], ["**.phone"], KEY + "!").applied({"phone": "1"})
    assert visits[0]["phone"] == again["phone"] != other["phone"]
    assert visits[0]["phone"] != visits[1]["phone"]
    assert visits[1]["deeper"]["phone"] == "", "nothing stays nothing"
    assert visits[0]["note"] == "x"


def test_dropping_wins_over_hashing() -> None:
    assert "name" not in redacted(drop=["form.name"], hashed=["form.name"])["form"]


def test_whole_parts_can_be_hashed_whatever_the_order_of_their_keys() -> None:
    one = Redaction.of([], ["a"], KEY).applied({"a": {"x": 1, "y": 2}})
    other = Redaction.of([], ["a"], KEY).applied({"a": {"y": 2, "x": 1}})
    assert one == other


@pytest.mark.parametrize("path", ["", ".", "a..b", "a.", "**", "a.**"])
def test_a_path_that_names_nothing_is_a_problem(path: str) -> None:
    (problem,) = path_problems("drop", [path])
    assert problem.startswith(f"drop: {path!r} is no path")


def test_what_the_records_key_says_cannot_be_hidden() -> None:
    (problem,) = path_problems("hash", ["case_id", "properties.case_id"])
    assert problem.startswith("hash: case_id stays as it is")


names = st.sampled_from("abc")
values = st.recursive(
    st.sampled_from(["", "x", None, 1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
)


@given(value=st.dictionaries(names, values), path=st.lists(names, min_size=1, max_size=4))
def test_exactly_what_is_named_is_dropped(value: Mapping[str, Json], path: list[str]) -> None:
    left = Redaction.of([".".join(path)], [], KEY).applied(value)
    assert list(leaves(left)) == [
        (place, leaf) for place, leaf in leaves(value) if place[: len(path)] != tuple(path)
    ]


def leaves(value: Json, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Json]]:
    """Yield what is at the ends, with the keys that lead there."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(inner, (*place, name))
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, place)
    else:
        yield place, value
