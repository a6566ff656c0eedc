"""The ordering rule of contract §5 against a model of HQ: what it always finds, and what it cannot.

`python -m tests.streams.ordering` says how often.
"""

import random
from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import assume, given, settings, strategies as st

from casewire.hq import Request
from casewire.simulation import forwards
from schemas.case import CaseEvent
from schemas.envelope import Captured
from schemas.parse import parse
from schemas.times import from_datetime
from streams.compact import latest_case
from streams.evidence import newest, proves_newer
from streams.fold import LARGEST_RIVAL, RIVALS, with_rival
from tests.streams.ordering import (
    ARRIVALS,
    CHANGES,
    Format,
    Saved,
    Step,
    captured_request,
    measured,
    play,
    received,
    requests,
)
from tests.streams.test_compact import WINDOW, capture, snapshot
from tests.streams.test_fold import Arrived, Held, arrive, block

#: HQ may process a form that it received before what it has processed by then.
submits = st.builds(Step, st.floats(0.001, 6), st.just("submit"), st.floats(0, 9.9))
others = st.builds(
    Step, st.floats(0.001, 6), st.sampled_from(CHANGES[1:]), st.just(0), st.integers(0, 9)
)
histories = st.lists(st.one_of(submits, others), min_size=1, max_size=9).map(play)


@settings(max_examples=300, deadline=None)
@given(histories, st.booleans(), st.randoms(use_true_random=False))
def test_snapshots_in_order_of_delivery_never_end_wrong(
    history: Sequence[Saved], with_forms: bool, chance: random.Random
) -> None:
    """Several forms archived within seconds among them; wherever the forms come in between."""
    arrived = [forwards.case(saved.case, "json", "demo") for saved in history]
    for saved in history if with_forms else ():
        if saved.form is not None:
            form = forwards.form(saved.form, "demo", as_json=chance.random() < 0.5)
            arrived.insert(chance.randint(0, len(arrived)), form)
    assert received(arrived, history[-1].case).right


anything = st.builds(
    Step, st.floats(0.001, 60), st.sampled_from(CHANGES), st.floats(0, 60), st.integers(0, 9)
)


def snapshot_of(saved: Saved) -> CaseEvent:
    record = captured_request(forwards.case(saved.case, "json", "demo"))
    event = parse(Captured.from_record(record.value, record.headers))
    assert isinstance(event, CaseEvent)
    return event


@settings(max_examples=300, deadline=None)
@given(st.lists(anything, min_size=2, max_size=9).map(play), st.randoms(use_true_random=False))
def test_what_forms_prove_of_two_snapshots_is_true(
    history: Sequence[Saved], chance: random.Random
) -> None:
    """Whatever HQ did, however late it was, and whichever forms are known.

    But that HQ received no two forms, or edits, of a case in one microsecond.
    """
    sent = [saved.form for saved in history if saved.form is not None]
    assume(len({form.server_time for form in sent}) == len(sent))
    forms = {form.id: form for form in sent}
    known = chance.sample(sorted(forms), chance.randint(0, len(forms)))
    times = {form_id: from_datetime(forms[form_id].received_on) for form_id in known}
    snapshots = [snapshot_of(saved) for saved in history]
    for earlier, later in combinations(snapshots, 2):
        if earlier.server_date_modified != later.server_date_modified:
            assert not proves_newer(earlier, later, times)
            assert newest([earlier, later], times) in (None, later)


def snapshots(history: Sequence[Saved], how: Format = "json") -> list[Request]:
    return [forwards.case(saved.case, how, "demo") for saved in history]


@pytest.mark.parametrize(
    ("how", "steps"),
    [
        # received 20 s before what was processed before it: further apart than the window
        ("json", [Step(1), Step(30), Step(1, "submit", 20)]),
        # XML does not say which forms it knows
        ("xml", [Step(1), Step(4), Step(1, "submit", 3)]),
        # the edit of an old form, received before the new form that was processed before it
        ("json", [Step(1), Step(4), Step(1, "edit", 3)]),
    ],
)
def test_in_order_of_delivery_it_ends_wrong_where_the_times_are_all_there_is(
    how: Format, steps: Sequence[Step]
) -> None:
    """docs/design.md names these; the model check above leaves them out."""
    history = play(steps)
    end = received(snapshots(history, how), history[-1].case)
    assert (end.right, end.doubtful) == (False, False)


def test_whether_a_form_was_archived_or_came_late_nobody_can_tell() -> None:
    """Two histories of which HQ forwards the same, to the byte, and that end otherwise.

    In both the second form is archived. In one, the third is processed late after that; in the
    other the archiving is coalesced with what follows, and the third form is archived too.
    """
    late = play([Step(1), Step(50), Step(50, "archive", which=1), Step(1, "submit", 3)])
    twice = play(
        [Step(1), Step(50), Step(45, "archive", which=1), Step(3), Step(2, "archive", which=1)]
    )
    archived, came_late = late[2:]
    came, archived_again = twice[3:]
    assert came_late.case == came.case != archived.case == archived_again.case
    assert [each.form for each in late if each.form] == [each.form for each in twice if each.form]
    assert late[:2] == twice[:2]
    forms = {
        form.id: from_datetime(form.received_on)
        for form in (each.form for each in late if each.form)
    }
    assert newest([snapshot_of(archived), snapshot_of(came_late)], forms) is None


OTHER_ORDER = play([Step(1), Step(4), Step(1, "submit", 3)])


@settings(max_examples=150, deadline=None)
@given(
    st.permutations([r for saved in OTHER_ORDER for r in requests(saved, "json", with_forms=True)])
)
def test_forms_settle_two_that_were_processed_in_the_other_order(order: list[Request]) -> None:
    """Whichever comes first of snapshots and forms; without forms it is doubtful."""
    end = received(order, OTHER_ORDER[-1].case)
    assert (end.right, end.doubtful) == (True, False)
    without = received([each for each in order if each.kind == "case_json"], OTHER_ORDER[-1].case)
    assert without.doubtful


def test_a_doubt_is_settled_again_when_the_form_is_read_again_after_a_crash() -> None:
    first, other = snapshot(5, "ab"), snapshot(3, "abc")
    state = latest_case(None, other, capture(1), window_microseconds=WINDOW).state
    verdict = latest_case(state, first, capture(2), window_microseconds=WINDOW)
    assert verdict.state is not None
    assert verdict.rival is not None
    held = Held(verdict.state, with_rival(None, verdict.rival, capture(2)))
    proof = Arrived(3, block("b", 5))
    after, folded = arrive(held, proof)
    assert folded.state is not None
    assert (folded.outcome, folded.state.xform_ids) == ("applied", ["a", "b", "c"])
    assert not folded.state.doubtful
    assert folded.state.version > verdict.state.version
    _, before_the_state_was_sent = arrive(Held(held.state, after.fold), proof)
    assert before_the_state_was_sent.state == folded.state
    _, afterwards = arrive(after, proof)
    assert (afterwards.state, afterwards.fold) == (None, after.fold)


def test_a_doubt_of_which_not_all_is_kept_stays() -> None:
    large = snapshot(3, "abc", properties={"story": "x" * LARGEST_RIVAL})
    state = latest_case(None, large, capture(1), window_microseconds=WINDOW).state
    verdict = latest_case(state, snapshot(5, "ab"), capture(2), window_microseconds=WINDOW)
    assert verdict.rival is not None
    fold = with_rival(None, verdict.rival, capture(2))
    assert fold.rivals == [None]
    _, folded = arrive(Held(verdict.state, fold), Arrived(3, block("b", 5)))
    assert folded.state is None
    for number in range(2 * RIVALS):
        other = snapshot(3, "abc", properties={"n": str(number)})
        rival = latest_case(None, other, capture(number), window_microseconds=WINDOW).state
        assert rival is not None
        fold = with_rival(fold, rival, capture(number))
    assert len(fold.rivals) == RIVALS + 1


@pytest.mark.parametrize("arrival", ARRIVALS)
def test_no_arrival_makes_a_wrong_state_common_that_is_not_doubtful(arrival: str) -> None:
    """The table of docs/design.md, with fewer cases."""
    alone, with_forms = (
        measured(ARRIVALS[arrival], "json", with_forms=forms, cases=60) for forms in (False, True)
    )
    assert with_forms["disputed"] < alone["disputed"]
    assert alone["wrong, not doubtful"] < 0.1
    if arrival == "in order":
        assert alone["wrong"] == with_forms["wrong"] == 0
