"""A spool that is cut or damaged at any byte gives every intact event once, and invents none."""

import pytest
from hypothesis import given, settings, strategies as st

from ingress.records import Event
from ingress.spool_format import (
    HEADER,
    Damaged,
    Stored,
    Torn,
    encode_payload,
    frame,
    parse_segment_name,
    scan,
    segment_name,
)

NONCE = b"\x00NONCE\xff\x01"

EVENTS = st.lists(
    st.builds(
        Event,
        st.uuids().map(str),
        st.lists(st.tuples(st.text(st.characters(max_codepoint=255)), st.binary(max_size=20))),
        st.binary(max_size=200),
    ),
    max_size=8,
)

RECORDED = [
    Event("first", [("ce_id", b"first"), ("x-a", b"\xff"), ("x-a", b"2")], b"<form/>" * 5),
    Event("empty", [], b""),
    # A body that holds a whole segment must not come out as events of its own.
    Event(
        "nested",
        [("ce_id", b"n")],
        HEADER + frame([encode_payload(Event("i", [], b""), 1)], b"8" * 8),
    ),
    Event("last", [("ce_id", b"last")], bytes(range(64))),
]


def segment(events: list[Event]) -> tuple[bytes, list[int]]:
    """Return a segment and the offset at which each record ends."""
    data = HEADER
    ends = []
    for event in events:
        data += frame([encode_payload(event, 1)], NONCE)
        ends.append(len(data))
    return data, ends


def events_of(data: bytes) -> list[Event]:
    return [found.event for found in scan(data, NONCE) if isinstance(found, Stored)]


@settings(deadline=None)
@given(EVENTS)
def test_what_was_written_comes_out_equal_and_in_order(events: list[Event]) -> None:
    data, ends = segment(events)
    found = list(scan(data, NONCE))
    assert [(item.event, item.end) for item in found if isinstance(item, Stored)] == list(
        zip(events, ends, strict=True)
    )
    assert len(found) == len(events)
    for index, end in enumerate(ends):
        later = [
            item.event for item in scan(data[end:], NONCE, header=False) if isinstance(item, Stored)
        ]
        assert later == events[index + 1 :]


def test_a_segment_cut_at_any_byte_gives_all_whole_records_and_counts_the_torn_one() -> None:
    data, ends = segment(RECORDED)
    for cut in range(len(data) + 1):
        found = list(scan(data[:cut], NONCE))
        whole = sum(end <= cut for end in ends)
        assert events_of(data[:cut]) == RECORDED[:whole]
        torn = cut not in (0, len(HEADER), *ends)
        assert [item for item in found if not isinstance(item, Stored)] == (
            [Torn(max([0, *(e for e in [len(HEADER), *ends] if e < cut)]), cut)] if torn else []
        ), cut


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_byte_damaged_anywhere_loses_only_its_record_and_is_told(flip: int) -> None:
    data, ends = segment(RECORDED)
    starts = [len(HEADER), *ends]
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= flip
        found = list(scan(bytes(damaged), NONCE))
        hit = [start <= position < end for start, end in zip(starts, ends, strict=False)]
        assert [item.event for item in found if isinstance(item, Stored)] == [
            event for event, lost in zip(RECORDED, hit, strict=True) if not lost
        ], position
        others = [item for item in found if not isinstance(item, Stored)]
        assert len(others) == 1
        assert others[0].start <= position < others[0].end


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.data())
def test_damage_of_any_kind_invents_nothing_and_spares_what_it_did_not_touch(
    events: list[Event], choose: st.DataObject
) -> None:
    data, ends = segment(events)
    start = choose.draw(st.integers(0, len(data)))
    removed = choose.draw(st.integers(0, len(data) - start))
    noise = choose.draw(st.binary(max_size=300))
    changed = data[:start] + noise + data[start + removed :]
    found = events_of(changed)
    starts = [len(HEADER), *ends]
    spared = [
        event
        for event, begin, end in zip(events, starts, ends, strict=False)
        if end <= start or begin >= start + removed
    ]
    assert [event for event in found if event in spared] == spared
    assert all(event in events for event in found)
    assert len(found) <= len(events)


@given(st.binary(max_size=2000))
def test_any_bytes_at_all_can_be_read(data: bytes) -> None:
    for found in (*scan(data, NONCE), *scan(HEADER + data, NONCE)):
        assert isinstance(found, Damaged | Torn)


def test_names_tell_order_and_nonce() -> None:
    assert parse_segment_name(segment_name(12, NONCE)) == (12, NONCE)
    assert segment_name(9, NONCE) < segment_name(10, NONCE)
    assert parse_segment_name("progress") is None
