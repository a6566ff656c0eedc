"""Decode, state, ledger and dead letters: from a record to the records that follow, pure."""

import re
from base64 import b64decode
from pathlib import Path

import orjson
import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from schemas.case import CaseState
from schemas.dead_letter import DeadLetter
from schemas.delivery import BatchDelivery, EventDelivery
from schemas.errors import InvalidEventError
from schemas.parse import REFERRED_XMLNS
from schemas.topics import MEBIBYTE
from streams.dead_letters import LARGEST_KEPT_VALUE, dead_letter, rejection_of
from streams.decode import decode
from streams.ledger import Ledger
from streams.records import captured_id, header
from streams.republish import fold_headers
from streams.state import case_judge, change_judge
from tests.streams.made import Made, captured, state as made_state

FIXTURES = Path(__file__).parent.parent / "fixtures" / "hq"
CASE = (FIXTURES / "case_json_current_open.json").read_bytes()
RECEIVED_ON = b"2026-06-01T00:00:00.000000Z"
judge = case_judge(writer="w1", window_microseconds=10_000_000)


def test_a_case_event_carries_the_headers_of_its_capture() -> None:
    sent = [
        ("content-type", b"application/json"),
        ("server-modified-on", b"2020-03-19T14:31:35.139959Z"),
        ("x-twice", b"1"),
        ("x-twice", b"\xff"),
    ]
    record = captured(CASE, headers=sent)
    decoded = decode(record)
    assert decoded.topic == "cases"
    assert decoded.out.key == b"demo/79e25a30-8db5-4a5a-827b-0297b254e87f"
    headers = decoded.out.headers
    source = header(record.headers, "ce_id")
    assert header(headers, "ce_id") == f"{source}/decode/0"
    assert header(headers, "casewire-captured-id") == source
    assert header(headers, "ce_type") == "org.commcare.case.snapshot"
    assert header(headers, "ce_subject") == "79e25a30-8db5-4a5a-827b-0297b254e87f"
    assert header(headers, "ce_time") == header(record.headers, "ce_time")
    assert header(headers, "content-type") == "application/json"
    assert header(headers, "casewire-schema") == "case/1"
    assert [value for name, value in headers if name == "x-twice"] == [b"1", b"\xff"]
    assert len([name for name, _ in headers if name == "ce_id"]) == 1


def fixture(name: str) -> Made:
    return captured((FIXTURES / name).read_bytes(), headers=[("received-on", RECEIVED_ON)])


def change_records(name: str) -> list[Made]:
    changes = decode(fixture(name)).changes
    return [Made(out.value, out.key, out.headers, "casewire.case-changes") for out in changes]


def test_a_form_makes_an_event_of_its_own_and_one_of_each_case_block() -> None:
    record = fixture("case_ledger_form.xml")
    decoded = decode(record)
    source = header(record.headers, "ce_id")
    assert decoded.topic == "forms"
    assert header(decoded.out.headers, "ce_id") == f"{source}/decode/0"
    assert [(out.key.decode()[-1], header(out.headers, "ce_id")) for out in decoded.changes] == [
        ("b", f"{source}/decode/1"),
        ("b", f"{source}/decode/2"),
        ("c", f"{source}/decode/3"),
    ]
    headers = decoded.changes[0].headers
    assert header(headers, "ce_type") == "org.commcare.case.changed"
    assert header(headers, "casewire-schema") == "case-change/1"
    assert header(headers, "ce_subject") == "fbb69a88-1eca-463a-883e-1148b96fb03b"
    assert header(headers, "received-on") == RECEIVED_ON.decode()
    assert decode(captured(CASE)).changes == ()


def test_a_form_between_two_projects_is_about_no_case_of_ours() -> None:
    sent = (FIXTURES / "form_xml_repeater_test_create.xml").read_bytes()
    assert len(decode(captured(sent)).changes) == 1
    for xmlns in REFERRED_XMLNS:
        referred = decode(
            captured(re.sub(rb'xmlns="[^"]+"', b'xmlns="%s"' % xmlns.encode(), sent, count=1))
        )
        assert header(referred.out.headers, "ce_type") == "org.commcare.form.referred"
        assert referred.changes == ()


def test_a_state_of_forms_says_which_block_made_it_and_its_fold_goes_beside_it() -> None:
    first, second, _ = change_records("case_ledger_form.xml")
    judge_change = change_judge(writer="w1", window_microseconds=10_000_000)
    opened = judge_change(first, None)
    assert opened.publish is not None
    assert opened.fold is not None
    closed = judge_change(second, opened.publish.value, opened.fold.value)
    assert closed.publish is not None
    assert closed.fold is not None
    state = CaseState.from_json(closed.publish.value or b"")
    assert (state.source, state.closed, state.deleted) == ("forms", True, False)
    assert state.properties["owner_id"] == "91cadfa4cb957cf021c76dfe31d206a6"
    assert header(closed.publish.headers, "ce_id") == f"{state.captured_id}/state/2"
    assert header(closed.publish.headers, "casewire-schema") == "case-state/1"
    for out, version in ((closed.publish, state.version), (closed.fold, 0)):
        assert header(out.headers, "casewire-writer") == "w1"
        assert int(header(out.headers, "casewire-version") or 0) >= version
    again = judge_change(second, closed.publish.value, closed.fold.value)
    assert (again.outcome, again.publish, again.fold) == ("applied", None, None)


def test_a_fold_that_is_published_again_has_the_headers_that_casewire_gives_it() -> None:
    judged = change_judge(writer="w1", window_microseconds=10_000_000)(
        change_records("case_ledger_form.xml")[0], None
    )
    assert judged.fold is not None
    again = dict(fold_headers("w1")(judged.fold.key, judged.fold.value or b""))
    first = dict(judged.fold.headers)
    ours = {name for name in again if name != "ce_time"} - {"ce_id"}
    assert {name: again[name] for name in ours} == {name: first[name] for name in ours}


def test_a_doubt_says_why_and_a_fold_that_is_not_needed_is_deleted() -> None:
    change = change_records("case_ledger_form.xml")[0]
    held = made_state("c1", 1).to_json()
    judged = change_judge(writer="w1", window_microseconds=10_000_000)(change, held)
    assert judged.outcome == "applied"
    assert judged.doubtful
    assert judged.publish is not None
    assert header(judged.publish.headers, "casewire-doubt") == "forms"
    assert judged.fold is not None
    later = replace(made_state("c1", 5), server_date_modified="2026-06-02T00:00:00.000000Z")
    settled = change_judge(writer="w1", window_microseconds=10_000_000)(
        change, later.to_json(), judged.fold.value
    )
    assert (settled.outcome, settled.publish) == ("stale", None)
    assert settled.fold is not None
    assert settled.fold.value is None
    assert header(settled.fold.headers, "casewire-version") is not None


def test_a_state_says_who_wrote_it_and_its_version() -> None:
    decoded = decode(captured(CASE))
    record = Made(decoded.out.value, decoded.out.key, decoded.out.headers, "casewire.cases")
    judged = judge(record, None)
    assert judged.publish is not None
    state = CaseState.from_json(judged.publish.value or b"")
    headers = judged.publish.headers
    assert header(headers, "casewire-version") == str(state.version)
    assert header(headers, "casewire-writer") == "w1"
    assert header(headers, "ce_type") == "org.commcare.case.state"
    assert header(headers, "casewire-schema") == "case-state/1"
    assert header(headers, "ce_id") == f"{state.captured_id}/state/0"
    again = judge(record, judged.publish.value)
    assert (again.outcome, again.publish) == ("applied", None)


@pytest.mark.parametrize(
    "record",
    [
        Made(b"{", topic="casewire.cases"),
        Made(b"{}", topic="casewire.cases"),
        Made(b"[1]", topic="casewire.cases"),
        Made(None, topic="casewire.cases"),
    ],
)
def test_a_record_that_streams_did_not_write_is_named_as_such(record: Made) -> None:
    with pytest.raises(InvalidEventError, match="not a value that streams writes"):
        judge(record, None)


def test_a_typed_event_too_large_for_its_topic_is_refused_before_it_is_sent() -> None:
    large = orjson.loads(CASE)
    large["properties"]["story"] = "x" * 9 * MEBIBYTE
    with pytest.raises(InvalidEventError) as refused:
        decode(captured(orjson.dumps(large)))
    assert refused.value.cause == "too_large"


@given(
    st.one_of(st.none(), st.binary(max_size=50)),
    st.lists(st.tuples(st.text(min_size=1, max_size=8), st.binary(max_size=8)), max_size=4),
)
def test_a_dead_letter_holds_the_record_as_it_was(
    value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    record = Made(value, b"k\xff", headers, "casewire.captured", 3, 77)
    why = rejection_of(InvalidEventError("malformed_xml", "line 1", path="root"))
    out = dead_letter(record, "decode", why, failed_at="2026-01-01T00:00:00.000000Z")
    letter = DeadLetter.from_json(out.value or b"")
    original = letter.original
    assert (original["topic"], original["partition"], original["offset"]) == (
        "casewire.captured",
        3,
        77,
    )
    assert original["key"] is not None
    assert b64decode(original["key"]) == b"k\xff"
    kept = original["value"]
    assert (None if kept is None else b64decode(kept)) == value
    assert [(name, b64decode(text)) for name, text in original["headers"]] == headers
    assert (letter.cause, letter.path, letter.explanation) == ("malformed_xml", "root", "line 1")
    assert out.key.decode() == captured_id(record)


def test_a_large_original_is_kept_by_reference() -> None:
    record = captured(b"x" * (LARGEST_KEPT_VALUE + 1), offset=5)
    out = dead_letter(record, "decode", rejection_of(ValueError("secret")), failed_at="t")
    letter = DeadLetter.from_json(out.value or b"")
    assert letter.original["value"] is None
    assert letter.original["value_bytes"] == LARGEST_KEPT_VALUE + 1
    assert (letter.cause, letter.retryable) == ("unexpected", True)
    assert "secret" not in letter.explanation


def test_a_ledger_says_how_many_ended_how_and_names_what_was_not_written() -> None:
    ledger = Ledger("state", written="applied")
    records = [
        Made(b"", headers=[("ce_id", f"id{i}/decode/0".encode())], topic="casewire.cases", offset=i)
        for i in (4, 5, 7)
    ]
    for record, outcome in zip(records, ("applied", "stale", "applied"), strict=True):
        ledger.add(record, outcome)
    batch, event = ledger.records()
    assert batch.key == b"state/0"
    tally = BatchDelivery.from_json(batch.value or b"")
    assert (tally.first_offset, tally.last_offset) == (4, 7)
    assert tally.counts == {"applied": 2, "stale": 1}
    entry = EventDelivery.from_json(event.value or b"")
    assert (entry.offset, entry.outcome, entry.event_id) == (5, "stale", "id5/decode/0")
