"""Cases in JSON and in XML (protocol.md §6.3, §6.4; contract §4 and §5)."""

import orjson
import pytest
from msgspec.structs import replace

from schemas.case import CaseEvent, CaseState
from schemas.errors import InvalidEventError
from schemas.parse import parse
from schemas.values import Json
from tests.schemas.captures import capture

V2 = "http://commcarehq.org/case/transaction/v2"
SENT: dict[str, Json] = {
    "domain": "demo",
    "case_id": "c1",
    "user_id": "u1",
    "closed": False,
    "xform_ids": ["f1"],
    "date_closed": None,
    "date_modified": "2020-01-01T00:00:00.000000Z",
    "server_date_modified": "2020-01-01T00:00:00.000000Z",
    "properties": {"case_type": "patient"},
    "indices": {},
    "attachments": {},
}


def from_json(changes: dict[str, Json], **headers: str) -> CaseEvent:
    event = parse(capture(orjson.dumps(SENT | changes), **headers))
    assert isinstance(event, CaseEvent)
    return event


def from_xml(inner: str, *, attributes: str = "", **headers: str) -> CaseEvent:
    body = f'<case xmlns="{V2}" case_id="c1" {attributes}>{inner}</case>'
    event = parse(capture(body, **headers))
    assert isinstance(event, CaseEvent)
    return event


def refusal(changes: dict[str, Json], **headers: str) -> tuple[str, str]:
    with pytest.raises(InvalidEventError) as error:
        from_json(changes, **headers)
    return error.value.cause, error.value.path


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"closed": "no"}, "closed"),
        ({"closed": None}, "closed"),
        ({"xform_ids": "f1"}, "xform_ids"),
        ({"xform_ids": ["f1", None]}, "xform_ids[1]"),
        ({"properties": None}, "properties"),
        ({"properties": []}, "properties"),
        ({"indices": []}, "indices"),
        ({"indices": {"parent": "c2"}}, "indices.parent"),
        ({"indices": {"parent": {"case_id": 2}}}, "indices.parent.case_id"),
        ({"indices": {"p": {"case_id": "2", "case_type": 1}}}, "indices.p.case_type"),
        ({"indices": {"p": {"case_id": "2", "relationship": 1}}}, "indices.p.relationship"),
        ({"server_date_modified": "soon"}, "server_date_modified"),
        ({"server_date_modified": 1577836800}, "server_date_modified"),
        ({"server_date_modified": "2026-11-23T10:00:00.000001Z"}, "server_date_modified"),
    ],
)
def test_a_field_that_is_relied_on_must_be_right(changes: dict[str, Json], path: str) -> None:
    assert refusal(changes) == ("invalid_field", path)


def test_a_header_that_is_relied_on_must_be_right() -> None:
    path = "headers.server-modified-on"
    absent = {"server_date_modified": None}
    assert refusal(absent, server_modified_on="soon") == ("invalid_field", path)
    assert refusal(absent, server_modified_on="2030-01-01") == ("invalid_field", path)


def test_a_capture_without_a_time_cannot_judge_what_is_ahead() -> None:
    captured = replace(capture(orjson.dumps(SENT)), time="")
    with pytest.raises(InvalidEventError) as error:
        parse(captured)
    assert (error.value.cause, error.value.path) == ("invalid_field", "headers.ce_time")


def test_24_hours_ahead_of_the_capture_is_not_too_early() -> None:
    event = from_json({"server_date_modified": "2026-11-23T10:00:00.000000Z"})
    assert event.server_date_modified == "2026-11-23T10:00:00.000000Z"


@pytest.mark.parametrize("absent", [None, ""])
def test_the_header_fills_in_a_missing_server_time(absent: str | None) -> None:
    event = from_json(
        {"server_date_modified": absent}, server_modified_on="2015-04-17T20:14:34.139959Z"
    )
    assert event.server_date_modified == "2015-04-17T20:14:34.139959Z"
    assert event.extra == {}


def test_the_body_wins_over_the_header() -> None:
    event = from_json({}, server_modified_on="nonsense")
    assert event.server_date_modified == "2020-01-01T00:00:00.000000Z"


def test_a_case_without_any_server_time_has_none() -> None:
    assert from_json({"server_date_modified": None}).server_date_modified is None


def test_a_time_sent_otherwise_keeps_its_text_beside() -> None:
    event = from_json(
        {
            "date_modified": "2020-01-01T05:30:00+05:30",
            "date_closed": "never",
            "server_date_modified": "2020-01-01",
        }
    )
    assert (event.date_modified, event.date_closed, event.server_date_modified) == (
        "2020-01-01T00:00:00.000000Z",
        None,
        "2020-01-01T00:00:00.000000Z",
    )
    assert event.extra == {
        "date_modified_sent": "2020-01-01T05:30:00+05:30",
        "date_closed_sent": "never",
        "server_date_modified_sent": "2020-01-01",
    }


def test_an_empty_time_is_absent() -> None:
    event = from_json({"date_modified": "", "date_closed": ""})
    assert (event.date_modified, event.date_closed, event.extra) == (None, None, {})


def test_removed_indices_are_left_out_and_others_complete() -> None:
    event = from_json(
        {
            "indices": {
                "removed": {"case_type": "a", "case_id": "", "relationship": "child"},
                "null": {"case_type": "a", "case_id": None},
                "bare": {"case_id": "c2"},
                "whole": {"case_type": "b", "case_id": "c3", "relationship": "extension"},
            }
        }
    )
    assert event.indices == {
        "bare": {"case_type": "", "case_id": "c2", "relationship": "child"},
        "whole": {"case_type": "b", "case_id": "c3", "relationship": "extension"},
    }


def test_what_is_absent_is_null_and_not_empty() -> None:
    body = {name: SENT[name] for name in ("case_id", "properties", "date_modified")}
    event = parse(capture(orjson.dumps(body)))
    assert isinstance(event, CaseEvent)
    assert (event.xform_ids, event.indices, event.attachments) == (None, None, None)
    assert not event.gone


def test_an_unknown_key_passes_through() -> None:
    assert from_json({"tomorrow": [1, {"a": None}]}).extra == {"tomorrow": [1, {"a": None}]}


def test_a_field_of_another_type_that_nothing_relies_on_passes_through_beside() -> None:
    event = from_json({"user_id": 7, "attachments": []})
    assert (event.user_id, event.attachments) == (None, None)
    assert event.extra == {"user_id_sent": 7, "attachments_sent": []}


def test_the_domain_of_the_address_wins() -> None:
    event = from_json({"domain": "elsewhere"})
    assert (event.domain, event.extra) == ("demo", {"domain_sent": "elsewhere"})


def test_a_sent_key_cannot_pass_for_what_a_state_adds() -> None:
    event = from_json({"version": "2.0", "deleted": True})
    assert event.extra == {"version_sent": "2.0", "deleted_sent": True}
    known = {name: getattr(event, name) for name in CaseEvent.names()}
    state = CaseState(
        **known,
        source="snapshot",
        version=5,
        captured_id="e1",
        deleted=False,
        doubtful=False,
        extra=event.extra,
    )
    assert CaseState.from_json(state.to_json()) == state


def test_xml_properties_are_as_sent_and_the_last_of_one_name_counts() -> None:
    event = from_xml(
        "<create><case_name>Ann</case_name><case_type>patient</case_type></create>"
        "<update><village> x </village><blank/><village>y</village><case_name>Bo</case_name>"
        "<amount-owed>1</amount-owed></update>"
    )
    assert event.properties == {
        "case_name": "Bo",
        "case_type": "patient",
        "village": "y",
        "blank": "",
        "amount-owed": "1",
    }
    assert event.case_type == "patient"


def test_xml_says_no_form_ids_attachments_and_closing_time() -> None:
    event = from_xml("<close/>", attributes='user_id="u1"')
    assert (event.xform_ids, event.attachments, event.date_closed) == (None, None, None)
    assert (event.closed, event.user_id, event.indices) == (True, "u1", {})
    assert not event.gone


def test_xml_indices_are_children_by_default_and_empty_ones_are_removed() -> None:
    event = from_xml(
        '<index><parent case_type="household">c2</parent><gone case_type="household"/>'
        '<host case_type="contact" relationship="extension">c3</host></index>'
    )
    assert event.indices == {
        "parent": {"case_type": "household", "case_id": "c2", "relationship": "child"},
        "host": {"case_type": "contact", "case_id": "c3", "relationship": "extension"},
    }


def test_xml_with_a_namespace_prefix_is_the_same_case() -> None:
    prefixed = (
        f'<n:case xmlns:n="{V2}" case_id="c1"><n:create><n:case_name>Ann</n:case_name></n:create>'
        '<n:index><n:p case_type="a">c2</n:p></n:index></n:case>'
    )
    assert parse(capture(prefixed)) == from_xml(
        '<create><case_name>Ann</case_name></create><index><p case_type="a">c2</p></index>'
    )


def test_xml_parts_that_hq_may_add_pass_through() -> None:
    event = from_xml(
        '<attachment><photo src="https://hq/p.jpg" from="remote"/></attachment><closed>x</closed>',
        attributes='priority="1"',
    )
    assert event.extra == {
        "@priority": "1",
        "attachment": {"photo": {"@src": "https://hq/p.jpg", "@from": "remote"}},
        "closed_sent": "x",
    }
    assert CaseEvent.from_json(event.to_json()) == event


def test_xml_times_follow_the_rules_of_json() -> None:
    event = from_xml("", attributes='date_modified="2011-12-06T13:42:50-05"')
    assert event.date_modified == "2011-12-06T18:42:50.000000Z"
    assert event.extra == {"date_modified_sent": "2011-12-06T13:42:50-05"}
    with pytest.raises(InvalidEventError, match=r"headers\.server-modified-on"):
        from_xml("", server_modified_on="2015")


def test_version_1_reads_its_own_names() -> None:
    event = parse(
        capture(
            "<case><case_id>c1</case_id><date_modified>2011-12-06</date_modified>"
            "<create><case_type_id>mother</case_type_id><user_id>u1</user_id></create>"
            "<update><owner_id>o1</owner_id><blank/></update><close/></case>"
        )
    )
    assert event == CaseEvent(
        domain="demo",
        case_id="c1",
        user_id="u1",
        closed=True,
        xform_ids=None,
        date_closed=None,
        date_modified="2011-12-06T00:00:00.000000Z",
        server_date_modified=None,
        properties={"case_type": "mother", "owner_id": "o1", "blank": ""},
        indices=None,
        attachments=None,
        extra={"date_modified_sent": "2011-12-06"},
    )
