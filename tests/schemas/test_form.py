"""Forms in JSON and in XML (protocol.md §6.1, §6.2; contract §4)."""

import orjson
import pytest

from schemas.errors import InvalidEventError
from schemas.form import FormEvent, FormStub
from schemas.markup import load_xml, to_json
from schemas.parse import parse
from schemas.values import Json
from tests.schemas.captures import capture

V2 = "http://commcarehq.org/case/transaction/v2"
SENT: dict[str, Json] = {
    "id": "f1",
    "domain": "demo",
    "form": {"#type": "data"},
    "metadata": None,
    "received_on": "2020-01-01T00:00:00.000000Z",
}


def from_json(changes: dict[str, Json], *, query: str = "", **headers: str) -> FormEvent:
    event = parse(capture(orjson.dumps(SENT | changes), query=query, **headers))
    assert isinstance(event, FormEvent)
    return event


def from_xml(
    answers: str = "",
    *,
    meta: str = "<meta><instanceID>f1</instanceID></meta>",
    query: str = "",
    **headers: str,
) -> FormEvent:
    event = parse(capture(f'<data xmlns="x">{answers}{meta}</data>', query=query, **headers))
    assert isinstance(event, FormEvent)
    return event


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        ("<a/>", ""),
        ("<a>1</a>", "1"),
        ("<a> </a>", " "),
        ('<a b="1"/>', {"@b": "1"}),
        ('<a b="1">x</a>', {"@b": "1", "#text": "x"}),
        ("<a><b>1</b></a>", {"b": "1"}),
        ("<a> <b/> </a>", {"b": ""}),
        ("<a>x<b/>y</a>", {"b": "", "#text": "x"}),
        ("<a><b>1</b><b/></a>", {"b": ["1", ""]}),
        ("<a><b/><c/><b><d/></b><b/></a>", {"b": ["", {"d": ""}, ""], "c": ""}),
        ('<a xmlns="u"/>', {"@xmlns": "u"}),
        ('<a xmlns="u"><b>1</b></a>', {"@xmlns": "u", "b": "1"}),
        (
            '<a xmlns="u"><b xmlns="v">1</b></a>',
            {"@xmlns": "u", "b": {"@xmlns": "v", "#text": "1"}},
        ),
        ('<a xmlns="u"><b xmlns="">1</b></a>', {"@xmlns": "u", "b": "1"}),
        ('<n:a xmlns:n="u"><b><n:c/></b></n:a>', {"@xmlns": "u", "b": {"c": {"@xmlns": "u"}}}),
        ('<a xmlns:n="u"><b n:c="1"/></a>', {"b": {"@{u}c": "1"}}),
        ("<a><b><!-- c --><c/></b></a>", {"b": {"c": ""}}),
        # The two samples of xml2json's own tests (test/data) in small:
        (
            '<p xmlns="u"><q>1</q><r xmlns="v"><s>2</s></r><t>3</t></p>',
            {"@xmlns": "u", "q": "1", "r": {"@xmlns": "v", "s": "2"}, "t": "3"},
        ),
        ("<a><b/>text<b/><!-- c --><d>1</d></a>", {"b": ["", ""], "d": "1"}),
    ],
)
def test_xml_becomes_the_json_that_hq_makes_of_it(xml: str, expected: Json) -> None:
    assert to_json(load_xml(xml.encode())) == expected


@pytest.mark.parametrize(
    ("meta", "form_id"),
    [
        ("<meta><instanceID>f1</instanceID></meta>", "f1"),
        ("<meta><instanceID>uuid:f1</instanceID></meta>", "uuid:f1"),
        ("<meta><uid>f1</uid></meta>", "f1"),
        ("<meta><uid>f1</uid><instanceID>f2</instanceID></meta>", "f1"),
        ("<Meta><uid>f1</uid></Meta>", "f1"),
        ("<meta/><Meta><instanceID>f1</instanceID></Meta>", "f1"),
        ("<meta><instanceID>f0</instanceID></meta><Meta><uid>f1</uid></Meta>", "f1"),
        ('<meta xmlns="http://openrosa.org/jr/xforms"><instanceID>f1</instanceID></meta>', "f1"),
        ('<meta><instanceID xmlns="y">f1</instanceID></meta>', "f1"),
        ("<meta><instanceID>f1</instanceID></meta><meta><uid>f2</uid></meta>", "f1"),
    ],
)
def test_the_form_id_is_the_one_that_hq_takes(meta: str, form_id: str) -> None:
    event = from_xml(meta=meta)
    assert event.id == form_id
    assert "Meta" not in event.form


@pytest.mark.parametrize(
    "meta",
    [
        "",
        "<meta/>",
        "<meta>f1</meta>",
        "<meta><instanceID/></meta>",
        "<group><meta><instanceID>f1</instanceID></meta></group>",
        "<meta>1</meta><meta><instanceID>f1</instanceID></meta>",
    ],
)
def test_xml_without_a_form_id_is_a_dead_letter(meta: str) -> None:
    with pytest.raises(InvalidEventError) as error:
        from_xml(meta=meta)
    assert error.value.cause == "missing_id"


def test_older_names_in_meta_become_todays_unless_those_are_there() -> None:
    event = from_xml(
        meta="<Meta><uid>f1</uid><TimeStart>2020-01-01</TimeStart><DeviceID>old</DeviceID>"
        "<deviceID>new</deviceID><chw_id>u1</chw_id></Meta>"
    )
    assert event.form["meta"] == {
        "instanceID": "f1",
        "timeStart": "2020-01-01",
        "DeviceID": "old",
        "deviceID": "new",
        "userID": "u1",
    }


def test_metadata_has_plain_texts_and_canonical_times() -> None:
    event = from_xml(
        meta='<m:meta xmlns:m="http://openrosa.org/jr/xforms"><m:instanceID>f1</m:instanceID>'
        "<m:timeStart>2015-04-17T16:04:54.950-04</m:timeStart><m:timeEnd/>"
        '<m:username>ann</m:username><c:appVersion xmlns:c="http://commcarehq.org/xforms">2.53'
        '</c:appVersion><c:location xmlns:c="http://commcarehq.org/xforms"/></m:meta>'
    )
    assert event.metadata == {
        "deviceID": None,
        "timeStart": "2015-04-17T20:04:54.950000Z",
        "timeStart_sent": "2015-04-17T16:04:54.950-04",
        "timeEnd": None,
        "username": "ann",
        "userID": None,
        "instanceID": "f1",
        "appVersion": "2.53",
        "location": None,
    }
    assert event.form["meta"]["timeStart"] == "2015-04-17T16:04:54.950-04"


def test_the_envelope_of_xml_comes_from_the_request() -> None:
    event = from_xml(query="app_id=a1", received_on="2015-04-17T20:14:34Z")
    assert (event.received_on, event.app_id) == ("2015-04-17T20:14:34.000000Z", "a1")
    assert event.extra == {"received_on_sent": "2015-04-17T20:14:34Z"}
    assert (event.domain, event.type, event.server_modified_on) == ("demo", "data", None)
    assert from_xml(query="app_id=None").app_id is None


def case_block(date_modified: str) -> str:
    return f'<case xmlns="{V2}" case_id="c1" date_modified="{date_modified}"/>'


def test_times_of_case_blocks_are_canonical_wherever_the_blocks_are() -> None:
    event = from_xml(
        f"<g><h>{case_block('2020-01-01T01:00+01')}</h>{case_block('never')}{case_block('')}</g>"
        f"<g><i/></g>{case_block('2020-01-01T00:00:00.000000Z')}"
    )
    block = {"@xmlns": V2, "@case_id": "c1"}
    right = "2020-01-01T00:00:00.000000Z"
    converted = {"@date_modified": right, "@date_modified_sent": "2020-01-01T01:00+01"}
    never = {"@date_modified": None, "@date_modified_sent": "never"}
    assert event.form["g"] == [
        {
            "h": {"case": block | converted},
            "case": [block | never, block | {"@date_modified": None}],
        },
        {"i": ""},
    ]
    assert event.form["case"] == block | {"@date_modified": right}


def test_times_of_case_blocks_in_json_too() -> None:
    block = {"@case_id": "c1", "@date_modified": "2020-01-01"}
    other = {"@date_modified": "2020-01-01"}
    sent = {"case": [dict(block), other, "text"], "g": [{"case": dict(block)}], "h": dict(block)}
    event = from_json({"form": sent})
    converted = {
        "@case_id": "c1",
        "@date_modified": "2020-01-01T00:00:00.000000Z",
        "@date_modified_sent": "2020-01-01",
    }
    assert event.form == {
        "case": [converted, other, "text"],
        "g": [{"case": converted}],
        "h": block,
    }


def test_answers_stay_as_sent() -> None:
    answers = {"when": "2020-01-01T01:00+01", "many": ["1", 2, None, {"a": ""}], "timeStart": "x"}
    assert from_json({"form": answers}).form == answers


@pytest.mark.parametrize("name", ["received_on", "server_modified_on", "edited_on"])
@pytest.mark.parametrize("value", ["soon", 7, {}])
def test_a_time_that_orders_versions_must_say_a_time(name: str, value: Json) -> None:
    with pytest.raises(InvalidEventError) as error:
        from_json({name: value})
    assert (error.value.cause, error.value.path) == ("invalid_field", name)


def test_a_received_on_header_that_says_no_time_is_a_dead_letter() -> None:
    with pytest.raises(InvalidEventError) as error:
        from_xml(received_on="soon")
    assert (error.value.cause, error.value.path) == ("invalid_field", "headers.received-on")


def test_the_header_fills_in_received_on() -> None:
    event = from_json({"received_on": "", "form": {}}, received_on="2015-04-17T20:14:34.046462Z")
    assert event.received_on == "2015-04-17T20:14:34.046462Z"


def test_the_query_fills_in_the_app_id() -> None:
    assert from_json({}, query="app_id=a1").app_id == "a1"
    assert from_json({"app_id": "a2"}, query="app_id=a1").app_id == "a2"


def test_metadata_times_of_json_are_canonical() -> None:
    event = from_json({"metadata": {"timeStart": "2020-01-01T00:00:00", "timeEnd": 7, "a": 1}})
    assert event.metadata == {
        "timeStart": "2020-01-01T00:00:00.000000Z",
        "timeStart_sent": "2020-01-01T00:00:00",
        "timeEnd": None,
        "timeEnd_sent": 7,
        "a": 1,
    }


def test_a_field_of_another_type_passes_through_beside() -> None:
    event = from_json({"archived": "maybe", "version": 18, "metadata": [], "submit_ip": None})
    assert (event.archived, event.version, event.metadata) == (None, None, None)
    assert event.extra == {"archived_sent": "maybe", "version_sent": 18, "metadata_sent": []}


def test_a_sent_key_cannot_pass_for_what_a_state_adds() -> None:
    assert from_json({"state_version": 1}).extra == {"state_version_sent": 1}


def test_the_domain_of_the_address_wins() -> None:
    event = from_json({"domain": "elsewhere"})
    assert (event.domain, event.extra) == ("demo", {"domain_sent": "elsewhere"})


def test_a_stub_takes_its_time_from_body_or_header() -> None:
    body = b'{"form_id": "f1", "case_ids": [], "received_on": "2020-01-01"}'
    assert parse(capture(body)) == FormStub(
        domain="demo",
        form_id="f1",
        received_on="2020-01-01T00:00:00.000000Z",
        case_ids=[],
        extra={"received_on_sent": "2020-01-01"},
    )
    without = parse(capture(b'{"form_id": "f1", "case_ids": []}', received_on="2020-01-01"))
    assert isinstance(without, FormStub)
    assert without.received_on == "2020-01-01T00:00:00.000000Z"
