"""What would not fit into a record becomes a dead letter, which always fits."""

import orjson
import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given, strategies as st

from schemas.errors import Cause, InvalidEventError, Rejection
from schemas.topics import LARGE_RECORD, MEBIBYTE, TOPICS
from streams.dead_letters import LARGEST_KEPT_VALUE, dead_letter
from streams.decode import decode
from streams.records import Out
from streams.sizes import LARGEST_KEY_BYTES, fitting, record_bytes
from streams.state import change_judge
from tests.streams.made import Made, captured
from tests.streams.test_worker import form_body

judge = change_judge(writer="w1", window_microseconds=10_000_000)


def refused(body: bytes) -> tuple[Cause, str]:
    with pytest.raises(InvalidEventError) as error:
        decode(captured(body))
    return error.value.cause, error.value.path


def test_a_body_that_grows_when_it_is_rendered_is_refused_before_it_is_sent() -> None:
    story = "&quot;" + '"' * 5 * MEBIBYTE
    meta = "<meta><instanceID>f1</instanceID></meta>"
    body = f'<data xmlns="http://example.org/f"><story>{story}</story>{meta}</data>'.encode()
    assert len(body) < LARGE_RECORD
    assert refused(body) == ("too_large", "")


@pytest.mark.parametrize("length", [LARGEST_KEY_BYTES, 7 * MEBIBYTE])
def test_an_id_longer_than_any_of_hqs_is_refused(length: int) -> None:
    """It would be in the key and in headers of all that follows, where less has room."""
    assert refused(form_body("f" * length, 0, {"create": {}})) == ("invalid_field", "")


def test_what_forms_say_of_a_case_is_refused_when_it_grows_too_large() -> None:
    held = fold = None
    for number in range(2):
        block = {"update": {f"story{number}": "x" * 5 * MEBIBYTE}}
        out = decode(captured(form_body(f"f{number}", number, block))).changes[0]
        record = Made(out.value, out.key, out.headers, "casewire.case-changes")
        if number == 0:
            judged = judge(record, held, fold)
            assert judged.publish is not None
            assert judged.fold is not None
            held, fold = judged.publish.value, judged.fold.value
        else:
            with pytest.raises(InvalidEventError) as error:
                judge(record, held, fold)
            assert error.value.cause == "too_large"


sizes = st.sampled_from([0, 1, LARGEST_KEPT_VALUE, LARGEST_KEPT_VALUE + 1, LARGE_RECORD])


@given(sizes, sizes, sizes, st.integers(0, LARGEST_KEY_BYTES), st.integers(0, 64 * 1024))
def test_a_dead_letter_fits_whatever_it_is_of(
    value: int, path: int, said: int, key: int, header: int
) -> None:
    record = Made(b'"' * value, b"\xff" * key, [("x-h\xe9", b'"' * header), ("ce_id", b"i")])
    why = Rejection("invalid_field", "wrong", path='"' * path, target_error='"' * said)
    letter = dead_letter(record, "decode", why, failed_at="2026-01-01T00:00:00.000000Z")
    assert record_bytes(letter) <= TOPICS["dead-letters"].max_message_bytes
    kept = orjson.loads(letter.value or b"")["original"]
    assert kept["value_bytes"] == value
    assert (kept["value"] is None) == (value > LARGEST_KEPT_VALUE)


@given(
    st.binary(max_size=99),
    st.one_of(st.none(), st.binary(max_size=999)),
    st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=99)), max_size=20),
)
def test_the_bound_of_a_record_holds(
    key: bytes, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    """For names of HTTP's headers, which are latin-1."""
    named = [(name.encode("latin-1", "replace").decode("latin-1"), each) for name, each in headers]
    out = Out(key, value, named)
    builder = BatchBuilder(MEBIBYTE, 0)
    builder.append(timestamp=None, key=out.key, value=out.value, headers=out.headers)
    assert builder.size() <= record_bytes(out)


def test_a_record_that_fits_is_let_through() -> None:
    out = Out(b"k", b"v", [])
    assert fitting(out, "cases") is out
