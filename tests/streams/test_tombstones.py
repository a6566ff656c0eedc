"""Cases that are long gone: their states become null, and what comes late does not revive them."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given, strategies as st
from msgspec.structs import replace

from schemas.case import CaseEvent, CaseState
from schemas.settings import KafkaSettings
from schemas.times import from_microseconds
from sinks.guard import OnDelete
from sinks.memory import MemorySink
from streams.app import create_streams_app
from streams.delivery import Delivery
from streams.fence import version_of
from streams.fold import CaseFold, with_mark
from streams.records import header
from streams.republish import fold_headers, state_headers, tombstone_headers
from streams.state import case_judge, change_judge
from streams.tombstones import DAY_MICROSECONDS, MARK_DAYS, STATE_DAYS, due, marks_due
from tests.kafka_tools import ConsumerRecord, read_all
from tests.streams.made import Made, captured, state as made_state, state_record
from tests.streams.test_compact import T0, WINDOW, snapshot, snapshots
from tests.streams.test_fold import block
from tests.streams.test_worker import (
    SETTINGS,
    case_body,
    form_body,
    judged,
    read_until,
    running,
    send,
    settings as settings,  # noqa: PLC0414 - a fixture
    sum_of,
)

pytestmark = pytest.mark.anyio

NOW = T0 + 400 * DAY_MICROSECONDS


def gone_state(days_ago: float, case_id: str = "c1", *, now: int = NOW) -> CaseState:
    version = int(now - days_ago * DAY_MICROSECONDS)
    held = made_state(case_id, version)
    return replace(held, deleted=True, xform_ids=[], captured_id="00000005")


@pytest.mark.parametrize(
    ("state", "is_due"),
    [
        (gone_state(STATE_DAYS), True),
        (gone_state(STATE_DAYS - 0.001), False),
        (replace(gone_state(STATE_DAYS), deleted=False), False),
        (replace(gone_state(99), deleted=False, extra={"x": {"deleted": True}}), False),
    ],
)
def test_a_state_is_due_thirty_days_after_its_case_is_gone(state: CaseState, is_due: bool) -> None:
    stored = [(b"other", 0, b'{"deleted":true'), (b"demo/c1", state.version, state.to_json())]
    assert due(stored, NOW) == ([b"demo/c1"] if is_due else [])


def test_a_mark_is_due_when_nothing_can_come_late_any_more() -> None:
    for days, is_due in ((MARK_DAYS, True), (MARK_DAYS - 1, False)):
        fold = with_mark(None, gone_state(days))
        stored = [(b"k", fold.version - 1, fold.to_json()), (b"l", 0, b'{"version":0,"forms":{}}')]
        assert marks_due(stored, NOW) == ([b"k"] if is_due else [])


def record(event: CaseEvent, number: int) -> Made:
    time = from_microseconds(T0 + number).encode()
    headers = [("ce_id", f"{number:08d}".encode()), ("ce_time", time), ("casewire-domain", b"demo")]
    return Made(event.to_json(), b"demo/c1", headers, "casewire.cases")


judge = case_judge(writer="w", window_microseconds=WINDOW)
judge_change = change_judge(writer="w", window_microseconds=WINDOW)


@given(st.lists(snapshots, max_size=3), st.sampled_from([20, 100]), snapshots, st.integers(0, 9))
def test_by_a_mark_snapshots_are_judged_as_by_the_state(
    before: list[CaseEvent], gone_at: float, event: CaseEvent, number: int
) -> None:
    held = None
    for nth, each in enumerate([*before, snapshot(gone_at, "")], start=1):
        published = judge(record(each, nth), held).publish
        held = published.value if published is not None else held
    assert held is not None
    state = CaseState.from_json(held)
    assume(state.deleted)
    mark = with_mark(None, state).to_json()
    by_state, by_mark = judge(record(event, number), held), judge(record(event, number), None, mark)
    if event.gone and event.server_date_modified == state.server_date_modified:
        return  # the same news again: whether it is the same to the letter is not known any more
    assert by_mark.outcome == by_state.outcome
    if by_state.outcome != "applied":
        assert by_mark.publish is None
    elif by_state.publish is not None and by_mark.publish is not None:
        ends = [
            CaseState.from_json(out.value or b"") for out in (by_state.publish, by_mark.publish)
        ]
        assert replace(ends[0], version=0) == replace(ends[1], version=0)
        assert ends[1].version > state.version + 1
    else:
        assert by_state.publish is by_mark.publish is None


@pytest.mark.parametrize(("seconds", "outcome"), [(-60, "stale"), (60, "applied")])
def test_a_late_block_of_a_form_revives_no_case_that_is_forgotten(
    seconds: float, outcome: str
) -> None:
    state = replace(gone_state(31), server_date_modified=from_microseconds(T0))
    mark = with_mark(None, state).to_json()
    change = block("late", seconds, create={"case_type": "patient"})
    late = dataclasses.replace(record(snapshot(0, "a"), 9), value=change.to_json())
    first = judge_change(late, None, mark)
    assert (first.outcome, first.publish) == (outcome, None)
    fold = mark if first.fold is None else first.fold.value
    assert fold is not None
    assert CaseFold.from_json(fold).gone == CaseFold.from_json(mark).gone
    again = judge_change(late, None, fold)
    assert (again.outcome, again.publish, again.fold) == (outcome, None, None)


def null_of(state: CaseState) -> Made:
    return Made(None, f"demo/{state.case_id}".encode(), tombstone_headers(state, "w"))


@pytest.mark.parametrize("on_delete", ["delete", "mark"])
@pytest.mark.parametrize("saw_the_deletion", [True, False])
async def test_a_sink_takes_a_null_for_a_deletion(
    on_delete: OnDelete, saw_the_deletion: bool
) -> None:
    """Who comes back after the state of the gone case is compacted away sees the null alone."""
    sink = MemorySink(on_delete)
    delivery = Delivery("test", sink)
    gone = replace(gone_state(31), version=7)
    version = [("casewire-version", b"7")]
    told = [Made(gone.to_json(), b"demo/c1", version)] if saw_the_deletion else []
    for some in ([state_record("c1", 5)], told, [null_of(gone)], [state_record("c1", 6)]):
        assert not (await delivery.deliver(some)).rejected
    rows = [(row.line.own["cw_deleted"], row.version) for row in sink.rows.values()]
    assert rows == ([] if on_delete == "delete" else [(True, 5)])
    assert sink.guards["demo", "case", "c1"].deleted
    assert sink.guards["demo", "case", "c1"].version == 8


async def test_a_null_of_a_case_that_a_sink_never_had_leaves_no_row() -> None:
    sink = MemorySink("delete")
    assert not (await Delivery("test", sink).deliver([null_of(gone_state(31))])).rejected
    assert sink.rows == {}


def held(state: CaseState) -> Made:
    key, value = f"demo/{state.case_id}".encode(), state.to_json()
    return Made(value, key, state_headers("case", "w")(key, value))


def marked(fold: CaseFold, case_id: str) -> Made:
    key, value = f"demo/{case_id}".encode(), fold.to_json()
    return Made(value, key, fold_headers("w")(key, value))


def nulls(records: Sequence[ConsumerRecord]) -> dict[bytes | None, int]:
    return {each.key: version_of(each.headers) for each in records if each.value is None}


@pytest.mark.kafka
async def test_a_worker_forgets_cases_that_are_long_gone(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    now = time.time_ns() // 1000
    long_gone = [gone_state(31, f"gone{n}", now=now) for n in range(20)]
    crashed = gone_state(31, "crashed", now=now)  # between its mark and its null
    forgotten = gone_state(MARK_DAYS + 1, "forgotten", now=now)
    kept = [gone_state(29, "lately", now=now), made_state("lives", now - 99 * DAY_MICROSECONDS)]
    await send(settings, "case-state", [held(state) for state in [*long_gone, crashed, *kept]])
    marks = [(crashed, "crashed"), (forgotten, "forgotten")]
    await send(
        settings, "case-folds", [marked(with_mark(None, s), case_id) for s, case_id in marks]
    )
    wanted = {
        f"demo/{state.case_id}".encode(): state.version + 1 for state in [*long_gone, crashed]
    }
    async with running(create_streams_app(settings, SETTINGS, tmp_path / "1")):
        found = await read_until(settings, "case-state", lambda found: nulls(found) == wanted)
        folds = await read_until(settings, "case-folds", lambda found: len(nulls(found)) == 1)
        assert nulls(folds).keys() == {b"demo/forgotten"}
        # What comes late is stale; what is newer revives.
        late = [case_body("gone0", -60, "a"), form_body("f1", -60, {"create": {}}, "gone1")]
        await send(settings, "captured", [captured(body) for body in late])
        await send(settings, "captured", [captured(case_body("gone2", (now - T0) / 1e6, "a"))])
        tallies = await read_until(settings, "deliveries", lambda found: judged(found) == 4)
    assert {header(each.headers, "ce_id") for each in found if each.value is None} == {
        "00000005/tombstone/0"
    }
    assert sum_of(tallies) == {"stale": 2, "applied": 2}
    # A second worker reads the same from the topics.
    async with running(create_streams_app(settings, SETTINGS, tmp_path / "2")):
        await send(settings, "captured", [captured(late[0])])
        await read_until(settings, "deliveries", lambda found: judged(found) == 5)
    everything = await read_all(settings.bootstrap_servers, settings.topic("case-state"))
    end = {each.key: each.value for each in everything}
    assert {key for key, value in end.items() if value is not None} == {
        b"demo/gone2", b"demo/lately", b"demo/lives",
    }  # fmt: skip


@pytest.mark.kafka
async def test_an_older_state_that_a_frozen_worker_writes_over_a_null_does_not_stay(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    now = time.time_ns() // 1000
    gone = gone_state(31, "gone", now=now)
    await send(settings, "case-state", [held(gone)])
    null = {b"demo/gone": gone.version + 1}
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        await read_until(settings, "case-state", lambda found: nulls(found) == null)
        older = replace(made_state("gone", gone.version - 5), deleted=False)
        await send(settings, "case-state", [held(older)])
        found = await read_until(settings, "case-state", lambda found: len(found) == 4)
    assert [each.value is None for each in found] == [False, True, False, True]
    assert found[-1].headers == found[1].headers
