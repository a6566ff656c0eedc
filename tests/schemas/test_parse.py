"""Kinds, labels, encodings and bad input: each body has one clear outcome."""

import gzip
import zlib
from typing import get_args

import pytest
from msgspec.structs import replace

from schemas.body import MAX_BYTES, MAX_JSON_DEPTH
from schemas.errors import Cause, InvalidEventError
from schemas.form import FormEvent
from schemas.markup import MAX_XML_DEPTH
from schemas.others import AppChange, CustomEvent
from schemas.parse import DESTINATIONS, Event, destination, key, parse, subject
from schemas.publish import PUBLISHED
from schemas.topics import TOPICS
from tests.schemas.captures import JSON, XML, capture

V2 = "http://commcarehq.org/case/transaction/v2"
FORM = b'<data xmlns="x"><a>1</a><meta><instanceID>f1</instanceID></meta></data>'
CASE = b'{"case_id": "c1", "properties": {}, "date_modified": null}'


def refused(body: bytes, *, label: str = "", **headers: str) -> tuple[Cause, str]:
    with pytest.raises(InvalidEventError) as error:
        parse(capture(body, label=label, **headers))
    return error.value.cause, error.value.path


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("body", "cause", "path"),
    [
        pytest.param(b"", "unknown_kind", "", id="empty"),
        pytest.param(b" \n", "unknown_kind", "", id="blank"),
        pytest.param(b"\xef\xbb\xbf", "unknown_kind", "", id="byte order mark only"),
        pytest.param(b"hello", "unknown_kind", "", id="text"),
        pytest.param(b"features=%5B%5D&f=json", "unknown_kind", "", id="a web form"),
        pytest.param(b"\x00", "unknown_kind", "", id="NUL"),
        pytest.param(b"{", "malformed_json", "", id="cut JSON"),
        pytest.param(b'{"a": "\xff"}', "malformed_json", "", id="JSON with invalid UTF-8"),
        pytest.param(b'{"a": "\x00"}', "malformed_json", "", id="JSON with NUL"),
        pytest.param(b'{"a": "\\ud800"}', "malformed_json", "", id="lone surrogate"),
        pytest.param(b'{"a": NaN}', "malformed_json", "", id="NaN"),
        pytest.param(b'{"a": 1e999}', "malformed_json", "", id="number beyond a double"),
        pytest.param(nested(10_000), "malformed_json", "", id="JSON 10,000 deep"),
        pytest.param(nested(MAX_JSON_DEPTH + 1), "malformed_json", "", id="JSON too deep"),
        pytest.param(b"NaN", "unknown_kind", "", id="bare NaN"),
        pytest.param(b"[]", "unknown_kind", "", id="list"),
        pytest.param(b"12", "unknown_kind", "", id="number"),
        pytest.param(b"null", "unknown_kind", "", id="null"),
        pytest.param(b"{}", "unknown_kind", "", id="empty object"),
        pytest.param(b"<", "malformed_xml", "", id="cut XML"),
        pytest.param(b"<a>\x00</a>", "malformed_xml", "", id="XML with NUL"),
        pytest.param(b"<a>\xff</a>", "malformed_xml", "", id="XML with invalid UTF-8"),
        pytest.param(b"<a>&nbsp;</a>", "malformed_xml", "", id="unknown entity"),
        pytest.param(b"<a/><b/>", "malformed_xml", "", id="two roots"),
        pytest.param(b"\xff\xfe{\x00}\x00", "malformed_xml", "", id="UTF-16 that is not XML"),
        pytest.param(b"<a/>", "missing_id", "meta.instanceID", id="XML without an id"),
        pytest.param(
            b"<a><meta><instanceID> </instanceID></meta></a>",
            "missing_id",
            "meta.instanceID",
            id="blank form id",
        ),
        pytest.param(
            b"<a><meta><uid>1</uid><uid>2</uid></meta></a>",
            "invalid_field",
            "meta.instanceID",
            id="two form ids",
        ),
        pytest.param(
            f'<case xmlns="{V2}"/>'.encode(), "missing_id", "case_id", id="case XML without id"
        ),
        pytest.param(
            b'<case xmlns="http://example.org/v9" case_id="1"/>',
            "unknown_kind",
            "",
            id="case XML in another namespace",
        ),
        pytest.param(
            b'{"properties": {}, "date_modified": null}', "missing_id", "case_id", id="no case id"
        ),
        pytest.param(
            b'{"case_id": "", "properties": {}, "date_modified": null}',
            "missing_id",
            "case_id",
            id="empty case id",
        ),
        pytest.param(
            b'{"case_id": 7, "properties": {}, "date_modified": null}',
            "invalid_field",
            "case_id",
            id="case id is a number",
        ),
        pytest.param(
            b'{"form": {}, "received_on": null}', "missing_id", "id", id="JSON form without id"
        ),
        pytest.param(
            b'{"id": "f", "form": [], "received_on": null}', "invalid_field", "form", id="form list"
        ),
        pytest.param(
            b'{"form_id": "f", "case_ids": ["c", 1]}',
            "invalid_field",
            "case_ids[1]",
            id="stub with a number for a case",
        ),
        pytest.param(b'{"form_id": "f", "case_ids": 1}', "invalid_field", "case_ids", id="stub"),
    ],
)
def test_a_bad_body_is_a_dead_letter_of_one_cause(body: bytes, cause: Cause, path: str) -> None:
    assert refused(body) == (cause, path)


BOMB = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">]>
<a x="&d;">&d;<meta><instanceID>f1</instanceID></meta></a>"""


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE data><data><meta><instanceID>f1</instanceID></meta></data>",
        b'<!DOCTYPE data SYSTEM "file:///etc/passwd"><data/>',
        b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>',
        b'<!DOCTYPE a [<!ENTITY % e SYSTEM "http://127.0.0.1:9/x">%e;]><a/>',
        BOMB,
    ],
)
def test_a_document_type_is_refused_whatever_it_declares(body: bytes) -> None:
    assert refused(body) == ("malformed_xml", "")


def deep_form(levels: int) -> bytes:
    groups = levels - 1
    meta = b"<meta><instanceID>f1</instanceID></meta>"
    return b"<data>" + meta + b"<g>" * groups + b"</g>" * groups + b"</data>"


@pytest.mark.parametrize("levels", [MAX_XML_DEPTH + 1, 1000, 100_000])
def test_xml_that_nests_too_deep_is_refused(levels: int) -> None:
    assert refused(deep_form(levels)) == ("malformed_xml", "")


def test_the_deepest_allowed_bodies_can_be_written_again() -> None:
    lists = deep_form(MAX_XML_DEPTH).replace(b"</g>", b"</g><g/>")
    assert parse(capture(lists)).to_json()
    assert parse(capture(nested(MAX_JSON_DEPTH), label="deep")).to_json()
    objects = b'{"a":' * MAX_JSON_DEPTH + b"1" + b"}" * MAX_JSON_DEPTH
    assert parse(capture(objects, label="deep")).to_json()


def test_a_body_with_many_brackets_need_not_be_deep() -> None:
    event = parse(capture(b"[" + b",".join([b"{}"] * 1000) + b"]", label="wide"))
    assert isinstance(event, CustomEvent)


@pytest.mark.parametrize("body", [b"", b"[1]", b"12", b'"text"', b"null", b'{"a": 1}'])
def test_what_is_no_known_kind_is_custom_under_a_label(body: bytes) -> None:
    event = parse(capture(body, label="arrivals", content_type=JSON))
    assert isinstance(event, CustomEvent)
    assert (event.label, event.to_json()) == (
        "arrivals",
        b'{"domain":"demo","label":"arrivals","body":'
        + (body or b"null").replace(b" ", b"")
        + b"}",
    )


@pytest.mark.parametrize(
    ("body", "cause"),
    [(b"hello", "unknown_kind"), (b"{", "malformed_json"), (b"<a/>", "missing_id")],
)
def test_a_label_makes_nothing_custom_that_is_not_json(body: bytes, cause: Cause) -> None:
    assert refused(body, label="arrivals")[0] == cause


def test_a_labelled_object_without_an_id_is_custom() -> None:
    event = parse(capture(b'{"properties": {}, "date_modified": null}', label="x"))
    assert isinstance(event, CustomEvent)


@pytest.mark.parametrize(
    ("body", "app_id"),
    [
        (b"193b28e58f335f165cb3e2bbe02b3ed8", "193b28e58f335f165cb3e2bbe02b3ed8"),
        (b"e0a6125\n", "e0a6125"),
    ],
)
def test_a_bare_hexadecimal_id_is_an_app(body: bytes, app_id: str) -> None:
    assert parse(capture(body, content_type=XML)) == AppChange(domain="demo", app_id=app_id)


def test_a_number_sent_as_json_is_no_app() -> None:
    event = parse(capture(b"12345678", label="count", content_type="application/json"))
    assert isinstance(event, CustomEvent)
    assert event.body == 12345678


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_method_makes_no_difference(method: str) -> None:
    assert parse(replace(capture(FORM), method=method)) == parse(capture(FORM))


@pytest.mark.parametrize("content_type", [XML, JSON, "application/x-python", ""])
def test_the_content_type_does_not_tell_xml_from_json(content_type: str) -> None:
    assert parse(capture(FORM, content_type=content_type)) == parse(capture(FORM))
    assert parse(capture(CASE, content_type=content_type)) == parse(capture(CASE))


@pytest.mark.parametrize(
    "body",
    [
        FORM,
        b"\xef\xbb\xbf" + FORM,
        b"\n  " + FORM + b"\n",
        b"<?xml version='1.0'?>" + FORM,
        b"\xef\xbb\xbf\n<?xml version='1.0' encoding='utf-8'?>" + FORM,
        b"<?xml version='1.0' encoding='iso-8859-1'?>" + FORM,
        ("<?xml version='1.0' encoding='utf-16'?>" + FORM.decode()).encode("utf-16"),
        FORM.replace(b"<a>", b"<!-- a comment --><?a processing?><a>"),
    ],
)
def test_the_same_form_in_other_bytes_is_the_same_event(body: bytes) -> None:
    assert parse(capture(body)) == parse(capture(FORM))


def test_a_declared_encoding_is_heeded() -> None:
    body = "<?xml version='1.0' encoding='iso-8859-1'?>" + FORM.decode().replace("1<", "é<", 1)
    event = parse(capture(body.encode("latin-1")))
    assert isinstance(event, FormEvent)
    assert event.form["a"] == "é"


def test_a_gzipped_body_is_unpacked() -> None:
    assert parse(capture(gzip.compress(FORM), content_encoding="GZIP")) == parse(capture(FORM))


@pytest.mark.parametrize(
    "body", [FORM, gzip.compress(FORM)[:-9], gzip.compress(FORM) + b"x", zlib.compress(FORM), b""]
)
def test_what_is_not_the_promised_gzip_is_a_dead_letter(body: bytes) -> None:
    assert refused(body, content_encoding="gzip") == ("unknown_kind", "")


def test_an_unknown_content_encoding_is_a_dead_letter() -> None:
    expected = ("unknown_kind", "headers.content-encoding")
    assert refused(FORM, content_encoding="br") == expected


def test_a_gzip_bomb_is_not_unpacked() -> None:
    packer = zlib.compressobj(1, wbits=zlib.MAX_WBITS | 16)
    bomb = packer.compress(bytes(MAX_BYTES + 1)) + packer.flush()
    assert refused(bomb, content_encoding="gzip") == ("too_large", "")


def test_a_body_beyond_the_limit_is_too_large() -> None:
    assert refused(b"<a>" + b" " * MAX_BYTES) == ("too_large", "")


def test_numbers_and_repeated_keys_of_json_have_one_meaning() -> None:
    event = parse(capture(b'{"a": 18446744073709551615, "b": 1, "b": 2}', label="x"))
    assert isinstance(event, CustomEvent)
    assert event.body == {"a": 18446744073709551615, "b": 2}


@pytest.mark.parametrize(
    ("xmlns", "ce_type"),
    [
        ("http://commcarehq.org/case", "org.commcare.form.referred"),
        ("http://commcarehq.org/data_registry_case_update", "org.commcare.form.referred"),
        ("http://openrosa.org/formdesigner/1", "org.commcare.form.submitted"),
    ],
)
def test_a_form_between_projects_has_a_type_of_its_own(xmlns: str, ce_type: str) -> None:
    event = parse(capture(FORM.replace(b'"x"', f'"{xmlns}"'.encode())))
    assert (destination(event).topic, destination(event).ce_type) == ("forms", ce_type)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (CASE, ("c1", "demo/c1")),
        (FORM, ("f1", "demo/f1")),
        (b'{"form_id": "f1", "case_ids": []}', ("f1", "demo/f1")),
        (b"e0a6125", ("e0a6125", "demo/e0a6125")),
        (b'{"id": "u1", "username": "", "user_data": {}}', ("u1", "demo/u1")),
        (b'{"location_id": "l1", "name": "", "site_code": ""}', ("l1", "demo/l1")),
    ],
)
def test_an_event_is_about_its_id_and_keyed_by_it(body: bytes, expected: tuple[str, str]) -> None:
    captured = capture(body)
    event = parse(captured)
    assert (subject(event, captured), key(event, captured)) == expected


def test_a_custom_event_is_about_its_capture_and_keyed_by_it() -> None:
    captured = capture(b"{}", label="arrivals")
    event = parse(captured)
    assert subject(event, captured) == key(event, captured) == captured.id


def test_every_event_has_a_destination_that_exists() -> None:
    assert set(DESTINATIONS) == set(get_args(Event))
    for kind, to in DESTINATIONS.items():
        assert to.topic in TOPICS
        assert PUBLISHED[to.schema] is kind
