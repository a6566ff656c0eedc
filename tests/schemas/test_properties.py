"""What holds for any body at all."""

from typing import Final
from xml.sax.saxutils import escape, quoteattr

import orjson
import pytest
from hypothesis import example, given, strategies as st

from schemas.body import MAX_JSON_DEPTH
from schemas.case import CaseEvent
from schemas.errors import InvalidEventError
from schemas.parse import parse
from schemas.publish import FOLDER, PUBLISHED, file_name
from schemas.times import canonical, from_datetime, to_microseconds
from schemas.values import Json
from tests.schemas.captures import HQ, capture

V2: Final = "http://commcarehq.org/case/transaction/v2"
MARK: Final = "zqxMARKzqx"

labels = st.sampled_from(["", "arrivals"])
#: What XML 1.0 can hold, without the line ends and blanks that its parsers may change.
xml_texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=20
)
names = st.from_regex(r"[a-z_][a-z0-9_-]{0,8}", fullmatch=True)

known_keys = st.sampled_from(
    sorted(
        {name for kind in PUBLISHED.values() for name in kind.names()}
        | {"data", "data_source_id", "site_code", "user_data", "@case_id", "@date_modified", "case"}
    )
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["c1", "2020-01-01", "2020-01-01T00:00:00.000000Z"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(known_keys | st.text(), inner, max_size=8)
    ),
    max_leaves=20,
)
sample_objects = st.sampled_from(
    [
        sample
        for path in sorted(HQ.glob("*.json"))
        if isinstance(sample := orjson.loads(path.read_bytes()), dict)
    ]
)


def xml_trees() -> st.SearchStrategy[str]:
    tags = st.sampled_from(
        [
            "case",
            "meta",
            "Meta",
            "instanceID",
            "uid",
            "case_id",
            "create",
            "update",
            "index",
            "data",
        ]
    )
    namespaces = st.sampled_from(["", f' xmlns="{V2}"', ' xmlns="x"', ' xmlns=""'])
    attributes = st.sampled_from(["", ' case_id="c1"', ' case_id="c1" date_modified="2020"'])

    def element(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.builds(
            lambda tag, namespace, attribute, content: (
                f"<{tag}{namespace}{attribute}>{''.join(content)}</{tag}>"
            ),
            tags | names,
            namespaces,
            attributes,
            st.lists(inner, max_size=4),
        )

    return element(st.recursive(xml_texts.map(escape), element, max_leaves=15))


def parse_or_refuse(body: bytes, label: str) -> None:
    """Parse; what comes out must survive its topic, and an error must be of the one kind."""
    headers = {"received_on": "2020-01-01", "server_modified_on": "2020-01-01"}
    try:
        event = parse(capture(body, label=label, **headers))
    except InvalidEventError:
        return
    assert type(event).from_json(event.to_json()) == event


@given(st.binary(), labels)
def test_any_bytes(body: bytes, label: str) -> None:
    parse_or_refuse(body, label)


@given(st.sampled_from([b"<", b"{", b"[", b'"', b"<?xml ", b"\xff\xfe", b"1"]), st.binary(), labels)
def test_any_bytes_with_a_likely_start(start: bytes, rest: bytes, label: str) -> None:
    parse_or_refuse(start + rest, label)


@given(xml_trees(), labels)
def test_any_xml(body: str, label: str) -> None:
    parse_or_refuse(body.encode(), label)


@given(json_values, labels)
def test_any_json(value: Json, label: str) -> None:
    parse_or_refuse(orjson.dumps(value), label)


@given(sample_objects, st.dictionaries(known_keys, json_values, max_size=4), labels)
@example({}, {"id": "f1", "form": {"case": [[{"case": {"@case_id": 1}}]]}, "metadata": 1}, "")
def test_any_changes_of_a_sample(sample: Json, changes: dict[str, Json], label: str) -> None:
    parse_or_refuse(orjson.dumps(sample | changes), label)


@given(sample_objects, st.data())
def test_any_cut_of_a_sample(sample: Json, data: st.DataObject) -> None:
    body = orjson.dumps(sample)
    parse_or_refuse(body[: data.draw(st.integers(0, len(body)))], "")


def marked(value: Json) -> Json:
    """Return the value with the mark in each text, but for what makes the kind known."""
    if isinstance(value, dict):
        return {name: marked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [marked(item) for item in value]
    return f"{MARK}{value}" if isinstance(value, str) else value


@given(sample_objects, st.dictionaries(known_keys, json_values | st.just(MARK), max_size=4))
def test_no_explanation_quotes_a_value_of_json(sample: Json, changes: dict[str, Json]) -> None:
    body = marked(sample | changes)
    for text in (orjson.dumps(body), orjson.dumps(body)[:-1]):
        assert MARK not in refusal(text)


def refusal(body: bytes) -> str:
    """Return all that an error says of a body, nothing if there is none."""
    try:
        parse(capture(body))
    except InvalidEventError as error:
        return f"{error} {error.explanation} {error.path}"
    return ""


@pytest.mark.parametrize(
    "body",
    [
        f"<a>{MARK}",
        f"<a>{MARK}</b>",
        f"<{MARK}></a>",
        f"<a>&{MARK};</a>",
        f"<a x='{MARK}' x='{MARK}'/>",
        f"<{MARK}:a/>",
        f"<!DOCTYPE {MARK}><a/>",
        f"<a><meta><uid>{MARK}</uid><uid>{MARK}</uid></meta></a>",
        f"<?xml version='1.0' encoding='{MARK}'?><a/>",
        f"<case xmlns='{MARK}' case_id='{MARK}'/>",
        f"{MARK}",
        f'{{"a": {MARK}}}',
        f'"{MARK}',
    ],
)
def test_no_explanation_quotes_a_broken_body(body: str) -> None:
    with pytest.raises(InvalidEventError) as error:
        parse(capture(body, received_on=MARK, server_modified_on=MARK))
    assert MARK not in f"{error.value}{error.value.explanation}{error.value.path}"
    assert error.value.__cause__ is None


@given(
    st.dictionaries(names, xml_texts, max_size=8),
    st.tuples(names, xml_texts, xml_texts),
    st.dictionaries(names, st.tuples(names, st.sampled_from(["", "c2", "c3"])), max_size=3),
    st.booleans(),
)
def test_a_case_says_the_same_in_each_format(
    dynamic: dict[str, str],
    created: tuple[str, str, str],
    indices: dict[str, tuple[str, str]],
    closed: bool,
) -> None:
    case_type, case_name, owner_id = created
    fixed = {"case_type": case_type, "case_name": case_name, "owner_id": owner_id}
    update = {"external_id": "e1", "date_opened": "2020-03-19"} | {
        f"p_{name}": value for name, value in dynamic.items()
    }
    links = {f"i_{name}": link for name, link in indices.items()}
    as_json = orjson.dumps(
        {
            "case_id": "c1",
            "closed": closed,
            "date_modified": None,
            "properties": fixed | update,
            "indices": {
                name: {"case_type": kind, "case_id": target, "relationship": "child"}
                for name, (kind, target) in links.items()
            },
        }
    )
    index = "".join(
        f"<{name} case_type={quoteattr(kind)}>{target}</{name}>"
        for name, (kind, target) in links.items()
    )
    close = "<close/>" if closed else ""
    v2 = (
        f'<case case_id="c1" xmlns="{V2}"><create>{elements(fixed)}</create>'
        f"<update>{elements(update)}</update><index>{index}</index>{close}</case>"
    )
    renamed = {"case_type_id": case_type, "case_name": case_name, "external_id": "e1"}
    rest = {name: value for name, value in update.items() if name != "external_id"}
    v1 = (
        f"<case><case_id>c1</case_id><create>{elements(renamed)}</create>"
        f"<update>{elements(rest | {'owner_id': owner_id})}</update>{close}</case>"
    )
    one, two, three = (parsed_case(body) for body in (as_json, v2.encode(), v1.encode()))
    assert one.properties == two.properties == three.properties
    assert one.closed == two.closed == three.closed == closed
    assert one.indices == two.indices
    assert three.indices is None


def elements(texts: dict[str, str]) -> str:
    return "".join(f"<{name}>{escape(text)}</{name}>" for name, text in texts.items())


def parsed_case(body: bytes) -> CaseEvent:
    event = parse(capture(body))
    assert isinstance(event, CaseEvent)
    return event


@given(st.datetimes(timezones=st.timezones() | st.none()).map(lambda time: time.isoformat()))
def test_a_canonical_time_is_its_own_canonical_form(text: str) -> None:
    time = canonical(text)
    if time is not None:
        assert canonical(time) == time
        assert len(time) == len("2026-11-22T10:00:00.000000Z")


@given(st.lists(st.datetimes(timezones=st.timezones()), min_size=2, max_size=2))
def test_the_order_of_canonical_texts_is_that_of_the_times(times: list[Json]) -> None:
    try:
        first, second = (from_datetime(time) for time in times)
    except OverflowError:
        return
    assert (first < second) == (to_microseconds(first) < to_microseconds(second))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-W47-7T10:00:00.000000Z", "2026-11-22T10:00:00.000000Z"),
        ("2026-11-22 10:00:00.000000Z", "2026-11-22T10:00:00.000000Z"),
        ("2026-11-22T10:00:00,000000Z", "2026-11-22T10:00:00.000000Z"),
        ("0001-01-01T00:00:00+01", None),
        ("yesterday", None),
    ],
)
def test_a_time_written_unusually_becomes_canonical_or_is_none(
    text: str, expected: str | None
) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_file_is_there(name: str) -> None:
    assert (FOLDER / file_name(name)).is_file()


def test_depth_leaves_room_for_what_wraps_a_body() -> None:
    """orjson writes at most 254 levels."""
    assert MAX_JSON_DEPTH < 250
