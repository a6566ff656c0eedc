"""Case blocks inside forms: found as HQ finds them, and said with HQ's meaning (protocol.md §7)."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from schemas.case_change import CaseChange, case_changes
from schemas.form import FormEvent
from schemas.parse import parse
from schemas.publish import schema
from schemas.values import Json
from tests.schemas.captures import JSON, RECEIVED_ON, XML, capture, fixture
from tests.schemas.test_fixtures import EVENTS

V2 = "http://commcarehq.org/case/transaction/v2"


def changes_in(event: Any) -> list[CaseChange]:
    assert isinstance(event, FormEvent)
    return list(case_changes(event))


def of_fixture(name: str) -> list[CaseChange]:
    return changes_in(parse(fixture(name)))


def of_form(**answers: Json) -> list[CaseChange]:
    sent = {
        "id": "f1",
        "received_on": RECEIVED_ON,
        "server_modified_on": "2015-04-17T20:14:36.000000Z",
        "edited_on": "2015-04-17T20:14:36",
        "metadata": {"userID": "form-user"},
        "form": {"#type": "data", "@xmlns": "http://example.org/form", **answers},
    }
    return changes_in(parse(capture(orjson.dumps(sent), content_type=JSON)))


def block(case_id: str = "c1", **parts: Json) -> dict[str, Json]:
    return {"@case_id": case_id, "@xmlns": V2, **parts}


def forms() -> Iterator[str]:
    return (name for name, (event_type, _) in EVENTS.items() if "form" in event_type)


@pytest.mark.parametrize("name", [name for name in forms() if name != "form_stub.json"])
def test_what_every_sample_form_says_is_as_published(name: str) -> None:
    validator = Draft202012Validator(schema("case-change/1"))
    changes = of_fixture(name)
    for change in changes:
        assert CaseChange.from_json(change.to_json()) == change
        assert not list(validator.iter_errors(orjson.loads(change.to_json())))
    assert [change.ordinal for change in changes] == [*range(1, len(changes) + 1)]


def test_a_block_says_what_its_form_says_of_it() -> None:
    (change,) = of_form(
        case=block(
            **{"@user_id": "u1", "@date_modified": "2015-04-17T16:04:54.950-04"},
            create={"case_type": "patient", "case_name": "Synthetic One"},
            update={"weight": "60", "note": ""},
            index={
                "parent": {"@case_type": "household", "#text": "h1"},
                "host": {"@case_type": "x", "@relationship": "extension", "#text": "h2"},
                "gone": {"@case_type": "household"},
            },
            attachment={"photo": {"@src": "a.jpg", "@from": "local"}, "old": ""},
            close="",
            referral={"@id": "r1"},
        )
    )
    assert change == CaseChange(
        domain="demo",
        case_id="c1",
        form_id="f1",
        ordinal=1,
        block=1,
        blocks=1,
        xmlns="http://example.org/form",
        user_id="u1",
        date_modified="2015-04-17T20:04:54.950000Z",
        received_on=RECEIVED_ON,
        server_modified_on="2015-04-17T20:14:36.000000Z",
        edited_on="2015-04-17T20:14:36.000000Z",
        create={"case_type": "patient", "case_name": "Synthetic One"},
        update={"weight": "60", "note": ""},
        close=True,
        index={
            "parent": {"case_type": "household", "case_id": "h1", "relationship": "child"},
            "host": {"case_type": "x", "case_id": "h2", "relationship": "extension"},
            "gone": {"case_type": "household", "case_id": "", "relationship": "child"},
        },
        attachment={
            "photo": {"src": "a.jpg", "from": "local", "name": None},
            "old": {"src": None, "from": None, "name": None},
        },
        extra={
            "date_modified_sent": "2015-04-17T16:04:54.950-04",
            "referral": {"@id": "r1"},
        },
    )


def test_blocks_are_numbered_where_hq_reads_them_and_for_each_case() -> None:
    changes = of_form(
        first={"case": block("a")},
        case=[block("b"), block("a", close="")],
        repeat=[{"case": block("c")}, {"deep": {"case": block("a")}}, "text"],
    )
    numbers = [(c.case_id, c.ordinal, c.block, c.blocks) for c in changes]
    assert numbers == [
        ("a", 1, 1, 3),
        ("b", 2, 1, 1),
        ("a", 3, 2, 3),
        ("c", 4, 1, 1),
        ("a", 5, 3, 3),
    ]


def test_the_same_form_in_xml_says_the_same_in_the_same_order() -> None:
    """HQ reads the JSON of an XML form: elements of one name stand where the first of them does."""
    xml = (
        f'<data xmlns="http://example.org/form"><group><n:case case_id="a" xmlns:n="{V2}"/></group>'
        f'<n:case case_id="b" xmlns:n="{V2}"/><other><n:case case_id="c" xmlns:n="{V2}"/></other>'
        f'<n:case case_id="d" xmlns:n="{V2}"/><group><n:case case_id="e" xmlns:n="{V2}"/></group>'
        "<meta><instanceID>f1</instanceID><userID>form-user</userID></meta></data>"
    )
    from_xml = changes_in(parse(capture(xml, content_type=XML, received_on=RECEIVED_ON)))
    from_json = of_form(
        group=[{"case": block("a")}, {"case": block("e")}],
        case=[block("b"), block("d")],
        other={"case": block("c")},
    )
    assert [change.case_id for change in from_xml] == ["a", "e", "b", "d", "c"]
    assert [(c.case_id, c.ordinal, c.user_id) for c in from_xml] == [
        (c.case_id, c.ordinal, c.user_id) for c in from_json
    ]


def test_version_1_is_said_under_the_names_of_version_2() -> None:
    first, second, third = of_fixture("v1_case_in_repeats.xml")
    assert first.case_id == "32337c03-2b73-497f-ab18-2b587f8c21df"
    assert first.create is not None
    assert first.create["case_type"] == "newborn_hiv_child"
    assert first.create["user_id"] == "2XC1EINEJV1NZ7QXHVUMHUQQV"
    assert first.update == {"sex": "1", "result1": ""}
    assert first.date_modified == "2011-09-19T22:29:48.096000Z"
    assert first.extra == {"date_modified_sent": "2011-09-19T22:29:48.096Z"}
    assert first.user_id == "2XC1EINEJV1NZ7QXHVUMHUQQV"
    assert (second.case_id[:8], third.close, third.index) == ("581b0506", True, None)


def test_of_a_repeated_property_the_last_counts_and_an_empty_block_is_one() -> None:
    (duplicates,) = of_fixture("v2_duplicate_case_properties.xml")
    assert duplicates.update == {"foo": "", "date_next_eb": "2012-05-27"}
    changed, touched = of_fixture("v2_multiple_case_blocks.xml")
    assert (changed.block, touched.block, touched.blocks) == (1, 2, 2)
    assert (touched.create, touched.update, touched.close, touched.index) == (
        None,
        None,
        False,
        None,
    )
    (empty,) = of_form(case=block(create="", update=None, index="", attachment={}))
    assert (empty.create, empty.update, empty.index, empty.attachment) == (None, None, None, None)


def test_ledgers_are_no_case_blocks() -> None:
    changes = of_fixture("case_ledger_form.xml")
    assert [(c.case_id[-1], c.close) for c in changes] == [("b", False), ("b", True), ("c", False)]
    assert not any("balance" in change.extra for change in changes)


@pytest.mark.parametrize(
    "sent",
    [
        "an answer",
        {"question": "x"},
        {"@case_id": "", "@xmlns": V2},
        {"@case_id": 7, "@xmlns": V2},
        {"@case_id": "c1", "@xmlns": "http://example.org/other"},
        {"case_id": "c1", "@xmlns": V2},
        {"case_id": {"deep": "c1"}},
    ],
)
def test_what_hq_would_not_take_for_a_case_block_is_none(sent: Json) -> None:
    assert of_form(case=sent) == []


def test_what_is_not_known_does_not_pass_for_what_is() -> None:
    (change,) = of_form(case=block(form_id="forged", **{"@new": "1"}))
    assert change.form_id == "f1"
    assert change.extra == {"form_id_sent": "forged", "@new": "1"}
    assert (change.user_id, change.date_modified) == ("form-user", None)
