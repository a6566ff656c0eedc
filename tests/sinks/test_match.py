from collections.abc import Mapping

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from casewire.sink_config import choice_of
from schemas.values import Json
from sinks.base import Message
from sinks.match import Choice, problems, refusal
from sinks.sql_settings import SqlSettings
from tests.contract.rigs import case_state

CASE = {
    "properties": {"case_type": "patient", "owner_id": "o1", "tags": ["a", "b"]},
    "closed": False,
    "indices": {"parent": {"case_id": "h1"}},
    "app_id": "app",
}


def message(value: Mapping[str, Json], source: str = "case-state") -> Message:
    return Message(
        source=source,  # type: ignore[arg-type]
        partition=0,
        offset=0,
        timestamp=0,
        key="demo/c1",
        headers=[],
        value=value,
        event=case_state("demo"),
        version=1,
    )


@pytest.mark.parametrize(
    ("match", "unmet"),
    [
        ({}, ""),
        ({"case_type": "patient"}, ""),
        ({"case_type": ["child", "patient"]}, ""),
        ({"case_type": "child"}, "case_type"),
        ({"kind": "case", "domain": "demo", "app_id": "app"}, ""),
        ({"kind": "form"}, "kind"),
        ({"domain": "other"}, "domain"),
        ({"xmlns": "x"}, "xmlns"),
        ({"properties": {"owner_id": "o1"}}, ""),
        ({"properties": {"owner_id": "o2"}}, "properties.owner_id"),
        ({"properties": {"absent": ""}}, "properties.absent"),
        ({"properties": {"tags": ["b"]}}, ""),
        ({"properties": {"tags": ["b", "c"]}}, "properties.tags"),
        ({"closed": False}, ""),
        ({"closed": 0}, "closed"),
        ({"indices": {"parent": {"case_id": "h1"}}}, ""),
        ({"not": {"case_type": "patient"}}, "not"),
        ({"not": {"case_type": "child"}}, ""),
        ({"any": [{"case_type": "child"}, {"closed": False}]}, ""),
        ({"any": [{"case_type": "child"}, {"closed": True}]}, "any (case_type, closed)"),
        ({"all": [{"case_type": "patient"}, {"closed": True}]}, "all.closed"),
    ],
)
def test_a_match_tells_what_is_not_met(match: Mapping[str, Json], unmet: str) -> None:
    assert list(problems(match)) == []
    assert refusal(match, message(CASE)) == unmet


def test_the_form_of_a_message_is_matched_by_xmlns() -> None:
    form = message({"form": {"@xmlns": "http://x/f"}}, "form-state")
    assert refusal({"kind": "form", "xmlns": "http://x/f"}, form) == ""


json = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@given(json)
def test_whatever_is_there_contains_itself(value: Json) -> None:
    assert refusal({"properties": {"p": value}}, message({"properties": {"p": value}})) == ""


@given(json, json)
def test_what_contains_a_fragment_still_does_with_more_in_it(value: Json, more: Json) -> None:
    wider = {"properties": {"p": value, "more": more}}
    assert refusal({"properties": {"p": value}}, message(wider)) == ""


def test_what_is_gone_is_judged_by_what_it_still_is() -> None:
    gone = message({"deleted": True, "properties": {"case_type": "patient"}})
    wanted = Choice({"case_type": "patient", "properties": {"owner_id": "o1"}}, {})
    assert wanted.rule_against(gone) == ""
    assert Choice({"case_type": "child"}, {}).rule_against(gone) == "match"
    forgotten = message({"deleted": True, "properties": {}})
    assert Choice({"case_type": "child"}, {}).rule_against(forgotten) == ""
    assert Choice({"case_type": "child", "domain": "x"}, {}).rule_against(forgotten) == "match"


@pytest.mark.parametrize(
    ("match", "said"),
    [
        (
            {"xmlnz": "x"},
            "match.xmlnz: no case or form has this key; did you mean xmlns?",
        ),
        ({"any": []}, "match.any: must be a list of tables"),
        ({"any": [{"kind": 1}]}, "match.any[0].kind: must be a text, or a list of texts"),
        ({"not": "x"}, "match.not: must be a table"),
    ],
)
def test_what_is_wrong_with_a_match_is_told(match: Mapping[str, Json], said: str) -> None:
    assert list(problems(match)) == [said]


@pytest.mark.parametrize(
    ("captured_at", "timestamp", "replayed", "rule"),
    [
        ("2026-11-22T11:59:59.999999Z", 1_900_000_000_000, False, "since"),
        ("2026-11-22T12:00:00.000000Z", 0, False, ""),
        ("2026-11-22T11:59:59.999999Z", 0, True, ""),
        ("", 1_700_000_000_000, False, "since"),
        ("", 1_900_000_000_000, False, ""),
    ],
)
def test_what_was_captured_before_a_moment_is_left_out_unless_it_is_replayed(
    captured_at: str, timestamp: int, replayed: bool, rule: str
) -> None:
    settings = SqlSettings(since="2026-11-22T13:00:00+01:00")
    headers = [("ce_time", captured_at.encode())] if captured_at else []
    of = replace(message(CASE), headers=headers, timestamp=timestamp, replayed=replayed)
    assert choice_of(settings, {}).rule_against(of) == rule
