"""Case blocks folded into states: whatever the order of arrival, what protocol.md §7 says."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from schemas.case import CaseState, Index
from schemas.case_change import CaseChange
from schemas.times import from_microseconds
from schemas.values import Json
from streams.compact import latest_case
from streams.fold import (
    DETAILED_FORMS,
    RECENT_FORMS,
    CaseFold,
    Folded,
    fold_change,
    unseen_forms,
)
from tests.streams.test_compact import T0, WINDOW, capture, snapshot

NAMES = ("case_type", "case_name", "owner_id", "external_id", "date_opened", "a", "b-c")
KNOWN = ("case_type", "case_name", "owner_id", "external_id", "date_opened")


def time(seconds: float) -> str:
    return from_microseconds(T0 + int(seconds * 1_000_000))


def block(form_id: str = "f1", seconds: float | None = 0, **changes: object) -> CaseChange:
    """Make the only block of a form that was received at so many seconds."""
    change = CaseChange(
        domain="demo",
        case_id="c1",
        form_id=form_id,
        ordinal=1,
        block=1,
        blocks=1,
        xmlns="http://example.org/form",
        user_id="u1",
        date_modified=None if seconds is None else time(seconds - 5),
        received_on=None if seconds is None else time(seconds),
        server_modified_on=None,
        edited_on=None,
        create=None,
        update=None,
        close=False,
        index=None,
        attachment=None,
    )
    return replace(change, **changes)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A block with the number of its form's capture."""

    number: int
    change: CaseChange


@dataclass(frozen=True, slots=True)
class Held:
    state: CaseState | None = None
    fold: CaseFold | None = None


def arrive(held: Held, arrived: Arrived, detailed: int = DETAILED_FORMS) -> tuple[Held, Folded]:
    when = capture(arrived.number)
    folded = fold_change(
        held.state, held.fold, arrived.change, when, detailed=detailed, window_microseconds=WINDOW
    )
    kept = CaseFold.from_json(folded.fold.to_json()) if folded.fold is not None else None
    return Held(folded.state or held.state, kept), folded


def after(blocks: Sequence[Arrived], detailed: int = DETAILED_FORMS) -> CaseState:
    held = Held()
    for arrived in blocks:
        held, _ = arrive(held, arrived, detailed)
    assert held.state is not None
    return held.state


SAID = (
    "user_id", "closed", "xform_ids", "date_closed", "date_modified", "properties",
    "server_date_modified", "indices", "source", "deleted", "attachments",
)  # fmt: skip


def said(state: CaseState) -> dict[str, Json]:
    return {name: getattr(state, name) for name in SAID}


def naive(blocks: Sequence[Arrived]) -> dict[str, Json]:
    """Read protocol.md §7 once more, over the newest version of each form, in order."""
    newest: dict[str, tuple[str, int]] = {}
    for each in blocks:
        version = (each.change.edited_on or "", each.number)
        newest[each.change.form_id] = max(version, newest.get(each.change.form_id, ("", -1)))
    current = {
        (each.change.received_on or "", each.change.form_id, each.change.ordinal): each.change
        for each in blocks
        if newest[each.change.form_id] == (each.change.edited_on or "", each.number)
    }
    case: dict[str, Json] = {
        "user_id": None, "closed": False, "date_closed": None, "date_modified": None,
        "source": "forms", "deleted": False, "attachments": None,
        "properties": {}, "indices": {}, "xform_ids": [],
    }  # fmt: skip
    for key in sorted(current):
        apply(case, current[key])
    return case


def apply(case: dict[str, Json], change: CaseChange) -> None:
    moment = change.date_modified or change.received_on
    if change.form_id not in case["xform_ids"]:
        case["xform_ids"].append(change.form_id)
    case["server_date_modified"] = change.received_on
    case["user_id"] = change.user_id or case["user_id"]
    case["date_modified"] = max(case["date_modified"] or "", moment or "") or None
    if change.close:
        case |= {"closed": True, "date_closed": moment}
    apply_properties(case["properties"], change)
    if change.user_id and not case["properties"].get("owner_id"):
        case["properties"]["owner_id"] = change.user_id
    if moment and not case["properties"].get("date_opened"):
        case["properties"]["date_opened"] = moment
    for name, index in (change.index or {}).items():
        case["indices"][name] = index
        if not index["case_id"]:
            del case["indices"][name]


def apply_properties(held: dict[str, Json], change: CaseChange) -> None:
    create, update = change.create or {}, change.update or {}
    held |= {name: value for name, value in create.items() if name in KNOWN and value}
    held |= {name: value for name, value in update.items() if name not in KNOWN or value}


values = st.sampled_from(["", "x", "y", "z"])
properties = st.one_of(
    st.none(), st.dictionaries(st.sampled_from(NAMES), values, min_size=1, max_size=4)
)
targets = st.builds(
    lambda case_id: Index(case_type="household", case_id=case_id, relationship="child"),
    st.sampled_from(["", "h1", "h2"]),
)
indices = st.one_of(
    st.none(), st.dictionaries(st.sampled_from(["parent", "host"]), targets, min_size=1)
)


@st.composite
def forms(draw: st.DrawFn, *, edits: bool) -> list[Arrived]:
    """Draw all blocks for one case of some forms, with later versions of some, as captured."""
    arrived: list[Arrived] = []
    number = 0
    for form in range(draw(st.integers(1, 5))):
        seconds = draw(st.one_of(st.none(), st.integers(0, 3)))
        for version in range(draw(st.integers(1, 3)) if edits else 1):
            number += 1
            edited_on = time(100 + version) if version and draw(st.booleans()) else None
            count = draw(st.integers(1, 3))
            arrived += [
                Arrived(
                    number,
                    block(
                        f"f{form}",
                        seconds,
                        ordinal=2 * nth + 1,
                        block=nth + 1,
                        blocks=count,
                        user_id=draw(st.sampled_from([None, "u1", "u2"])),
                        date_modified=draw(st.sampled_from([None, time(-9), time(0), time(9)])),
                        edited_on=edited_on,
                        create=draw(properties),
                        update=draw(properties),
                        close=draw(st.booleans()),
                        index=draw(indices),
                    ),
                )
                for nth in range(count)
            ]
    return arrived


@given(forms(edits=True), st.randoms(use_true_random=False))
def test_any_order_and_repetition_gives_what_the_blocks_say_in_order(
    blocks: list[Arrived], chance: Random
) -> None:
    again = blocks + chance.sample(blocks, chance.randint(0, len(blocks)))
    chance.shuffle(again)
    assert said(after(again)) == naive(blocks) == said(after(blocks))


@given(forms(edits=False), st.randoms(use_true_random=False), st.integers(0, 2))
def test_what_is_forgotten_of_old_forms_was_said_otherwise_by_later_ones(
    blocks: list[Arrived], chance: Random, detailed: int
) -> None:
    again = blocks + chance.sample(blocks, chance.randint(0, len(blocks)))
    chance.shuffle(again)
    assert said(after(again, detailed)) == naive(blocks)


def test_who_opened_and_owns_a_case_is_not_forgotten() -> None:
    blocks = [
        Arrived(number, block(f"f{number}", number, user_id=user_id))
        for number, user_id in enumerate([None, "u1", "u2", "u2", None])
    ]
    state = after(blocks, detailed=0)
    assert state.properties == {"owner_id": "u1", "date_opened": time(-5)}
    assert (state.user_id, state.date_modified) == ("u2", time(-1))


@given(forms(edits=True), st.randoms(use_true_random=False))
def test_a_block_read_again_after_a_crash_publishes_no_more(
    blocks: list[Arrived], chance: Random
) -> None:
    held = Held()
    for arrived in blocks:
        before = held
        held, folded = arrive(held, arrived)
        assert (
            before.state is None
            or folded.state is None
            or (folded.state.version > before.state.version)
        )
        again, redone = arrive(held, arrived)
        assert (redone.state, redone.outcome) == (None, folded.outcome) or folded.outcome == (
            "duplicate"
        )
        assert again.fold == held.fold


@given(forms(edits=False))
def test_a_state_that_a_crash_left_behind_its_fold_is_made_up_for(blocks: list[Arrived]) -> None:
    held = Held()
    for arrived in blocks:
        held, _ = arrive(held, arrived)
    redone = Held(None, held.fold)
    for arrived in blocks:
        redone, _ = arrive(redone, arrived)
    assert redone.state is not None
    assert held.state is not None
    assert said(redone.state) == said(held.state)


def test_a_fold_stays_small() -> None:
    held = Held()
    sizes = []
    for number in range(200):
        update = {f"p{i}": "x" * 50 for i in range(20)}
        held, _ = arrive(held, Arrived(number, block(f"f{number:03}", number, update=update)))
        assert held.fold is not None
        sizes.append(len(held.fold.to_json()))
    assert sizes[-1] < 1.6 * sizes[30]


def test_names_that_mean_something_else_in_hq() -> None:
    update = {"name": "", "location_id": "l1", "hq_user_id": "u9", "user_id": "u7"}
    create = {"case_name": "Synthetic One", "not_known": "x"}
    state = after([Arrived(1, block(create=create, update=update, user_id=None))])
    assert state.user_id == "u7"
    assert state.properties == {
        "case_name": "",
        "hq_user_id": "u9",
        "external_id": "u9",
        "owner_id": "u7",
        "date_opened": time(-5),
    }


def test_the_first_snapshot_replaces_what_forms_said_whatever_its_time() -> None:
    held, _ = arrive(Held(), Arrived(5, block("f9", 100, update={"gone": "x"})))
    verdict = latest_case(held.state, snapshot(-500, None), capture(1), window_microseconds=WINDOW)
    assert verdict.outcome == "applied"
    assert verdict.state is not None
    assert held.state is not None
    assert verdict.state.source == "snapshot"
    assert "gone" not in verdict.state.properties
    assert verdict.state.version > held.state.version
    assert list(unseen_forms(verdict.state, held.fold)) == ["f9"]


def with_snapshot(seconds: float, known: str | None) -> Held:
    event = snapshot(seconds, known)
    return Held(latest_case(None, event, capture(1), window_microseconds=WINDOW).state)


@pytest.mark.parametrize(
    ("held", "change", "unseen"),
    [
        (with_snapshot(0, "a"), block("b", 1), True),
        (with_snapshot(0, None), block("b", 1), True),
        (with_snapshot(0, "ab"), block("b", 1), False),
        (with_snapshot(1, "a"), block("b", 1), False),
        (with_snapshot(0, "a"), block("b", None), False),
        (with_snapshot(60, "a"), block("b", 1), False),
        (with_snapshot(0, ""), block("b", 1), True),
    ],
)
def test_a_block_newer_than_the_snapshot_makes_the_state_doubtful_once(
    held: Held, change: CaseChange, unseen: bool
) -> None:
    again, folded = arrive(held, Arrived(2, change))
    assert held.state is not None
    if not unseen:
        assert (folded.outcome, folded.state) == ("stale", None)
        assert not unseen_forms(held.state, folded.fold)
        return
    assert folded.outcome == "applied"
    assert folded.state == replace(held.state, version=held.state.version + 1, doubtful=True)
    assert folded.state.deleted == held.state.deleted
    for number, outcome in ((2, "applied"), (3, "duplicate")):
        _, redone = arrive(again, Arrived(number, change))
        assert (redone.outcome, redone.state) == (outcome, None)


def test_a_doubt_stays_until_a_snapshot_knows_the_form() -> None:
    held, _ = arrive(with_snapshot(0, "a"), Arrived(2, block("c", 60)))
    between, known = snapshot(30, "ab"), snapshot(60, "abc")
    assert list(unseen_forms(between, held.fold)) == ["c"]
    assert not unseen_forms(known, held.fold)
    at_last = Held(
        latest_case(held.state, known, capture(4), window_microseconds=WINDOW).state, held.fold
    )
    cleared, folded = arrive(at_last, Arrived(2, block("c", 60)))
    assert folded.outcome == "stale"
    assert cleared.state is not None
    assert not unseen_forms(cleared.state, cleared.fold)
    later = latest_case(cleared.state, snapshot(90, "abcd"), capture(5), window_microseconds=WINDOW)
    forgotten, _ = arrive(Held(later.state, cleared.fold), Arrived(6, block("b", 30)))
    assert forgotten.fold is None


def test_a_fold_beside_a_snapshot_holds_no_more_than_the_forms_it_does_not_know() -> None:
    held = Held()
    for number in range(100):
        held, _ = arrive(held, Arrived(number, block(f"f{number:03}", number, update={"a": "x"})))
    event = snapshot(50, None)
    verdict = latest_case(held.state, event, capture(200), window_microseconds=WINDOW)
    beside, _ = arrive(Held(verdict.state, held.fold), Arrived(201, block("late", 10)))
    assert beside.fold is not None
    assert len(beside.fold.forms) == RECENT_FORMS
    assert not any(form.blocks for form in beside.fold.forms.values())
