"""Decode, state, ledger and dead letters: from a record to the records that follow, pure."""

from base64 import b64decode
from pathlib import Path

import orjson
import pytest
from hypothesis import given, strategies as st

from schemas.case import CaseState
from schemas.dead_letter import DeadLetter
from schemas.delivery import BatchDelivery, EventDelivery
from schemas.errors import InvalidEventError
from schemas.topics import MEBIBYTE
from streams.dead_letters import LARGEST_KEPT_VALUE, dead_letter, rejection_of
from streams.decode import decode
from streams.ledger import Ledger
from streams.records import captured_id, header
from streams.state import case_judge
from tests.streams.made import Made, captured

FIXTURES = Path(__file__).parent.parent / "fixtures" / "hq"
CASE = (FIXTURES / "case_json_current_open.json").read_bytes()
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
