"""The short way: where it answers, it says what the rule of contract §5 says."""

from functools import partial

import pytest
from hypothesis import example, given, strategies as st
from msgspec.structs import replace

from schemas.case import CaseEvent, CaseState
from streams.compact import Verdict, latest_case
from streams.shortcut import Successor, successor
from tests.streams.test_compact import WINDOW, capture, fold, snapshot, snapshots

sources = st.sampled_from(["snapshot", "forms"])
answers = st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.floats(0, 1), max_size=3)


def short_way(held: CaseState | None, event: CaseEvent, number: int) -> Successor | None:
    stored = held.to_json() if held is not None else None
    return successor(stored, event.to_json(), partial(capture, number))


@st.composite
def states(draw: st.DrawFn) -> CaseState:
    events = draw(st.lists(snapshots, min_size=1, max_size=3))
    state = fold(list(enumerate(events, start=1)))
    return replace(state, source=draw(sources), doubtful=draw(st.booleans()))


@given(st.none() | states(), snapshots, answers, answers, st.integers(0, 9))
@example(fold([(1, snapshot(0, "a"))]), snapshot(10, "a"), {"é": "\u2028"}, {}, 2)
@example(fold([(1, snapshot(0, ""))]), snapshot(10, None), {}, {}, 0)
def test_the_short_way_says_what_the_rule_says(
    held: CaseState | None,
    event: CaseEvent,
    properties: dict[str, str | float],
    extra: dict[str, str | float],
    number: int,
) -> None:
    event = replace(event, properties={**event.properties, **properties}, extra=extra)
    short = short_way(held, event, number)
    if short is None:
        return
    verdict = latest_case(held, event, capture(number), window_microseconds=WINDOW)
    assert verdict == Verdict("applied", CaseState.from_json(short.value))
    assert verdict.state is not None
    assert short == Successor(event.case_id, verdict.state.version, verdict.state.to_json())


def test_a_first_snapshot_and_one_that_is_plainly_later_go_the_short_way() -> None:
    held = fold([(1, snapshot(0, "ab"))])
    assert short_way(None, snapshot(0, "a"), 1)
    assert short_way(held, snapshot(1, "abc"), 2)
    assert short_way(held, snapshot(60, "bc"), 2)
    assert short_way(held, snapshot(1, None), 0)


@pytest.mark.parametrize(
    "event",
    [
        snapshot(9.999, "a"),
        snapshot(0, "abc"),
        snapshot(-60, "a"),
        snapshot(60, ""),
        snapshot(None, "abc"),
        snapshot(60, "abc", extra={"unknown": 1}),
        snapshot(60, "abc", closed="no"),
    ],
)
def test_what_is_not_plain_goes_the_long_way(event: CaseEvent) -> None:
    held = fold([(1, snapshot(0, "ab"))])
    assert short_way(held, event, 2) is None
    assert short_way(replace(held, source="forms"), snapshot(60, "abc"), 2) is None
    assert short_way(held, snapshot(60, "abc"), 1) is None


NOT_UTF_8 = snapshot(0, "a").to_json().replace(b"Synthetic", b"\xff")


@pytest.mark.parametrize("value", [b"", b"null", b"{}", b"[1]", b'{"domain":', NOT_UTF_8])
def test_what_is_no_snapshot_goes_the_long_way(value: bytes) -> None:
    assert successor(None, value, partial(capture, 1)) is None
