"""A case's story, without Kafka: in any order of arrival, and without its beginning."""

from collections.abc import Sequence
from random import Random

import msgspec
from hypothesis import given, strategies as st

from schemas.case import CaseState
from schemas.case_change import CaseChange
from schemas.times import from_microseconds
from streams.past.story import Event, Judges, Step, first_certain, in_order, steps
from streams.records import time_of_id
from streams.settings import StreamsSettings
from tests.streams.made import IDS, Made
from tests.streams.test_compact import T0, snapshot

JUDGES = Judges.of(StreamsSettings())
SECOND = 1_000_000


def event(number: int, kind: str, changed: float) -> Event:
    """Make the event that was captured second `number`; `changed` is HQ's time, never later."""
    time = T0 + number * SECOND
    captured_id = f"{number:08d}"
    headers = [
        ("ce_id", f"{captured_id}/decode/0".encode()),
        ("ce_time", from_microseconds(time).encode()),
        ("casewire-captured-id", captured_id.encode()),
    ]
    if kind == "block":
        made = Made(block(number, changed).to_json(), b"demo/c1", headers)
        return Event.of(made, "block")
    forms = "".join(chr(97 + each) for each in range(number + 1)) if kind == "json" else None
    told = snapshot(changed, forms, properties={"case_type": "patient", "n": str(number)})
    return Event.of(Made(told.to_json(), b"demo/c1", headers), "snapshot")


def block(number: int, received: float) -> CaseChange:
    return CaseChange(
        domain="demo",
        case_id="c1",
        form_id=f"f{number}",
        ordinal=1,
        block=1,
        blocks=1,
        xmlns="http://example.org/form",
        user_id="u1",
        date_modified=None,
        received_on=from_microseconds(T0 + int(received * SECOND)),
        server_modified_on=None,
        edited_on=None,
        create=None,
        update={"n": f"block {number}"},
        close=False,
        index=None,
        attachment=None,
    )


@st.composite
def stories(draw: st.DrawFn) -> Sequence[Event]:
    """Events in the order of capture, a second apart; some of them late by up to five minutes."""
    kinds = draw(st.lists(st.sampled_from(["json", "xml", "block"]), min_size=1, max_size=12))
    late = st.one_of(st.just(0.0), st.floats(0, 300))
    return [event(60 * n, kind, 60 * n - draw(late)) for n, kind in enumerate(kinds)]


def states(told: Sequence[Step]) -> list[CaseState | None]:
    return [None if step.state is None else CaseState.from_json(step.state) for step in told]


@given(stories(), st.randoms())
def test_a_story_does_not_depend_on_the_order_of_arrival(
    story: Sequence[Event], rng: Random
) -> None:
    arrived = [*story, *rng.sample(list(story), k=len(story) // 2)]
    rng.shuffle(arrived)
    assert in_order(arrived) == list(story)


@given(stories(), st.integers(0, 12))
def test_what_is_told_of_a_story_without_its_beginning_is_what_the_whole_one_tells(
    story: Sequence[Event], dropped: int
) -> None:
    kept = story[min(dropped, len(story) - 1) :]
    whole = list(steps(story, JUDGES, -1))[len(story) - len(kept) :]
    certain = first_certain(kept, kept[0].captured_at)
    told = list(steps(kept, JUDGES, certain))
    for part, same in zip(told, whole, strict=True):
        if part.state is not None:
            assert told_content(part) == told_content(same)
    if certain is not None:
        assert all(step.state is not None for step in told[certain:])
        assert told[certain].differences() is None
    assert all(step.outcome is None for step in told[: certain if certain is not None else None])


def told_content(step: Step) -> tuple[CaseState, str | None]:
    state = CaseState.from_json(step.state or b"")
    return msgspec.structs.replace(state, version=0, doubtful=False), step.outcome


def test_a_story_tells_what_changed_and_by_which_forms() -> None:
    story = [event(0, "block", 0), event(1, "json", 1), event(61, "json", 61), event(62, "json", 2)]
    told = list(steps(story, JUDGES, -1))
    assert [step.outcome for step in told] == ["applied", "applied", "applied", "stale"]
    assert told[0].form_ids() == ["f0"]
    assert len(told[2].form_ids()) == 60
    assert [(each.name, each.old, each.new) for each in told[2].differences() or ()] == [
        ("properties.n", "1", "61")
    ]
    assert told[3].differences() == []
    assert "source" in [each.name for each in told[1].differences() or ()]


def test_what_the_keeper_buried_is_told_as_dead() -> None:
    broken = Made(b"{", b"demo/c1", [("ce_id", b"0/decode/0")])
    told = list(steps([Event.of(broken, "snapshot"), event(1, "json", 1)], JUDGES, -1))
    assert [step.outcome for step in told] == ["dead", "applied"]


def test_an_id_tells_when_its_event_was_captured() -> None:
    for _ in range(100):
        event_id, time = IDS.next()
        assert time_of_id(event_id) <= time
        assert time[:-4] >= time_of_id(event_id)[:-4]
    assert time_of_id("casewire.cases/0/1") == "1970-01-01T00:00:00.000000Z"
