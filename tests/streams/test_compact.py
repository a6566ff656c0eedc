"""Contract §5: which version is newest."""

import itertools
from collections.abc import Sequence
from functools import reduce

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from schemas.case import CaseEvent, CaseState
from schemas.form import FormEvent, FormState
from schemas.others import LocationEvent, LocationState, UserEvent, UserState
from schemas.times import from_microseconds
from streams.compact import (
    Capture,
    Verdict,
    latest_case,
    latest_form,
    latest_saved,
)

WINDOW = 10_000_000
T0 = 1_700_000_000_000_000


def capture(number: int) -> Capture:
    return Capture(f"{number:08d}", T0 + number)


def snapshot(seconds: float | None, forms: str | None, **changes: object) -> CaseEvent:
    """Make a snapshot: JSON that knows of the forms named by letters, XML if `forms` is None."""
    time = None if seconds is None else from_microseconds(T0 + int(seconds * 1_000_000))
    case = CaseEvent(
        domain="demo",
        case_id="c1",
        user_id="u1",
        closed=False,
        xform_ids=None if forms is None else list(forms),
        date_closed=None,
        date_modified=time,
        server_date_modified=time,
        properties={"case_type": "patient", "case_name": "Synthetic One"} if forms != "" else {},
        indices={},
        attachments=None if forms is None else {},
    )
    return replace(case, **changes)


def judge(held: CaseState | None, event: CaseEvent, number: int) -> Verdict[CaseState]:
    return latest_case(held, event, capture(number), window_microseconds=WINDOW)


def fold(events: Sequence[tuple[int, CaseEvent]]) -> CaseState:
    """Return the state after the events, each with the number of its capture."""

    def step(held: CaseState | None, item: tuple[int, CaseEvent]) -> CaseState | None:
        return judge(held, item[1], item[0]).state or held

    state = reduce(step, events, None)
    assert state is not None
    return state


def test_the_first_snapshot_is_the_state() -> None:
    event = snapshot(0, "a")
    verdict = judge(None, event, 1)
    assert verdict.outcome == "applied"
    assert verdict.state is not None
    assert verdict.state.properties == event.properties
    assert verdict.state.version == T0 + 1
    assert (verdict.state.source, verdict.state.deleted) == ("snapshot", False)


PAIRS = [
    # the second against the first (captured 1 and 2): outcome, doubtful
    ("later time", snapshot(0, "a"), snapshot(60, "ab"), "applied", False),
    ("earlier time", snapshot(60, "ab"), snapshot(0, "a"), "stale", False),
    ("the same again", snapshot(0, "a"), snapshot(0, "a"), "duplicate", False),
    ("later XML", snapshot(0, "a"), snapshot(60, None), "applied", False),
    ("later within the window", snapshot(0, "a"), snapshot(5, "ab"), "applied", False),
    ("other order", snapshot(5, "a"), snapshot(0, "ab"), "applied", True),
    ("archived at once", snapshot(0, "ab"), snapshot(5, "a"), "applied", True),
    ("archived later", snapshot(0, "ab"), snapshot(10, "a"), "applied", False),
    ("superset at equal times", snapshot(0, "a"), snapshot(0, "ab"), "applied", False),
    ("subset at equal times", snapshot(0, "ab"), snapshot(0, "a"), "stale", False),
    ("XML of the held JSON", snapshot(0, "a"), snapshot(0, None), "duplicate", False),
    ("JSON of the held XML", snapshot(0, None), snapshot(0, "a"), "applied", False),
    (
        "other content at equal times",
        snapshot(0, "a"),
        snapshot(0, "a", closed=True),
        "applied",
        False,
    ),
    ("no time against a time", snapshot(0, "a"), snapshot(None, "ab"), "stale", False),
    ("a time against none", snapshot(None, "ab"), snapshot(0, "a"), "applied", False),
    ("no times", snapshot(None, "a"), snapshot(None, "b"), "applied", False),
    ("gone", snapshot(0, "ab"), snapshot(60, ""), "applied", False),
    ("older than gone", snapshot(60, ""), snapshot(0, "a"), "stale", False),
    ("revived at equal times", snapshot(0, ""), snapshot(0, "a"), "applied", True),
    ("gone and its XML", snapshot(0, ""), snapshot(0, None), "duplicate", False),
    ("the XML of gone, and gone", snapshot(0, None), snapshot(0, ""), "applied", False),
]


@pytest.mark.parametrize(
    ("first", "second", "outcome", "doubtful"),
    [pair[1:] for pair in PAIRS],
    ids=[p[0] for p in PAIRS],
)
def test_pairs(first: CaseEvent, second: CaseEvent, outcome: str, doubtful: bool) -> None:
    verdict = judge(fold([(1, first)]), second, 2)
    assert (verdict.outcome, verdict.doubtful) == (outcome, doubtful)
    if outcome == "applied":
        assert verdict.state is not None
        assert verdict.state.doubtful == doubtful
        assert verdict.state.deleted == second.gone


def test_a_stale_snapshot_that_makes_the_order_doubtful_marks_the_held_state() -> None:
    later_captured = judge(None, snapshot(5, "a"), 2).state
    verdict = judge(later_captured, snapshot(0, "ab"), 1)
    assert verdict.outcome == "stale"
    assert verdict.state is not None
    assert verdict.state.doubtful
    assert later_captured is not None
    assert verdict.state.version == later_captured.version + 1
    again = judge(verdict.state, snapshot(0, "ab"), 1)
    assert again.state is None


def test_a_case_that_is_gone_keeps_its_type_for_the_sinks() -> None:
    state = fold([(1, snapshot(0, "a")), (2, snapshot(60, ""))])
    assert state.deleted
    assert state.properties == {"case_type": "patient"}


def test_an_event_read_again_changes_nothing() -> None:
    event = snapshot(0, "a")
    state = fold([(1, event)])
    assert judge(state, event, 1) == Verdict("applied")


snapshots = st.builds(
    snapshot,
    st.one_of(st.none(), st.sampled_from([0, 3, 9, 10, 25, 100])),
    st.one_of(st.none(), st.sampled_from(["", "a", "ab", "abc", "b", "bc"])),
    closed=st.booleans(),
)


@given(st.lists(snapshots, min_size=1, max_size=6))
def test_versions_grow_and_reading_again_publishes_nothing(events: list[CaseEvent]) -> None:
    held: CaseState | None = None
    for number, event in enumerate(events):
        before, verdict = held, judge(held, event, number)
        if verdict.state is not None:
            held = verdict.state
            assert before is None or held.version > before.version
        assert held is not None
        assert judge(held, event, number).state is None


@given(
    st.lists(st.sampled_from(["a", "ab", "abc", "abcd"]), min_size=1, max_size=4, unique=True),
    st.data(),
)
def test_any_order_of_arrival_gives_the_last_when_times_are_apart(
    forms: list[str], data: st.DataObject
) -> None:
    events = [(i, snapshot(20 * i, text)) for i, text in enumerate(forms)]
    expected = events[-1][1]
    for order in itertools.permutations(events):
        again = [*order, data.draw(st.sampled_from(events))]
        state = fold(again)
        assert state.server_date_modified == expected.server_date_modified
        assert state.xform_ids == expected.xform_ids


@given(snapshots, snapshots)
def test_two_snapshots_end_the_same_in_either_order(one: CaseEvent, other: CaseEvent) -> None:
    """Arrival decides nothing: the captures do."""
    forward = fold([(1, one), (2, other)])
    backward = fold([(2, other), (1, one)])
    assert replace(forward, version=0, captured_id="", properties={}) == replace(
        backward, version=0, captured_id="", properties={}
    )


def form(modified: float | None, answer: str = "x", edited: float | None = None) -> FormEvent:
    times = [
        None if seconds is None else from_microseconds(T0 + int(seconds * 1_000_000))
        for seconds in (modified, edited)
    ]
    return FormEvent(
        id="f1",
        domain="demo",
        form={"q": answer},
        metadata=None,
        server_modified_on=times[0],
        edited_on=times[1],
    )


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        (form(0), form(0), "duplicate"),
        (form(0), form(1, "y"), "applied"),
        (form(1), form(0, "y"), "stale"),
        (form(1), form(None, "y"), "applied"),
        (form(1), form(1, "y"), "applied"),
        (form(1, "x", 1), form(1, "y"), "stale"),
        (form(1, "x", 1), form(1, "y", 2), "applied"),
        (form(1, "x", 2), form(1, "y", 1), "stale"),
        (form(1, "x", 2), form(2, "y", 1), "applied"),
        (form(1, "x", 2), form(None, "y"), "applied"),
    ],
)
def test_forms(first: FormEvent, second: FormEvent, outcome: str) -> None:
    held: FormState | None = latest_form(None, first, capture(1)).state
    verdict = latest_form(held, second, capture(2))
    assert verdict.outcome == outcome
    if verdict.state is not None and held is not None:
        assert verdict.state.state_version > held.state_version
        assert verdict.state.form == second.form


def user(name: str) -> UserEvent:
    return UserEvent(domain="demo", id="u1", username=name)


def location(name: str) -> LocationEvent:
    return LocationEvent(domain="demo", location_id="l1", name=name)


@pytest.mark.parametrize(
    ("number", "name", "outcome"),
    [(3, "new", "applied"), (1, "new", "stale"), (3, "x", "duplicate"), (1, "x", "duplicate")],
)
def test_of_users_and_locations_the_later_captured_is_newer(
    number: int, name: str, outcome: str
) -> None:
    held_user = latest_saved(UserState, None, user("x"), capture(2)).state
    held_location = latest_saved(LocationState, None, location("x"), capture(2)).state
    verdicts = (
        (held_user, latest_saved(UserState, held_user, user(name), capture(number))),
        (
            held_location,
            latest_saved(LocationState, held_location, location(name), capture(number)),
        ),
    )
    for held, verdict in verdicts:
        assert held is not None
        assert verdict.outcome == outcome
        assert (verdict.state is not None) == (outcome == "applied")
        assert verdict.state is None or verdict.state.version > held.version
    again = latest_saved(UserState, held_user, user("x"), capture(2))
    assert (again.outcome, again.state) == ("applied", None)
    moved = latest_saved(LocationState, held_location, location("x"), capture(2))
    assert (moved.outcome, moved.state) == ("applied", None)


def test_the_earlier_captured_form_is_stale_where_times_do_not_tell() -> None:
    held = latest_form(None, form(None), capture(2)).state
    assert latest_form(held, form(None, "y"), capture(1)).outcome == "stale"
