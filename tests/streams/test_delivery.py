"""The runner between a topic and a sink, without Kafka."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TypeAlias

import anyio
import pytest
from hypothesis import given, strategies as st

from schemas.errors import (
    RejectedRowsError,
    Rejection,
    TargetError,
    TransientError,
)
from sinks.base import Message, Result
from sinks.match import Choice
from sinks.memory import MemorySink
from streams.delivery import (
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    TELL_SECONDS,
    Delivery,
    Pace,
    backoff,
)
from tests.contract.rigs import form_state
from tests.streams.made import Made, state_record

pytestmark = pytest.mark.anyio


Step: TypeAlias = Callable[[Sequence[Message]], Exception | list[Result] | None]


class ScriptedSink:
    """A sink that fails as its script says, then holds what it was given."""

    def __init__(
        self, *script: Callable[[Sequence[Message]], Exception | list[Result] | None]
    ) -> None:
        self.script = list(script)
        self.rows: dict[str, int] = {}
        self.opened = 0
        self.writes: list[int] = []

    async def open(self) -> None:
        self.opened += 1

    async def write(self, messages: Sequence[Message]) -> Sequence[Result]:
        self.writes.append(len(messages))
        said = self.script.pop(0)(messages) if self.script else None
        if isinstance(said, Exception):
            raise said
        assert len({message.key for message in messages}) == len(messages)
        results: list[Result] = ["written"] * len(messages)
        results[: len(said or ())] = said or ()
        for message, result in zip(messages, results, strict=True):
            if result == "written":
                self.rows[message.subject] = message.version
        return results

    async def close(self) -> None:
        self.rows = {}


class Waits:
    """Waits no time, and remembers how long it should have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def down(_messages: Sequence[Message]) -> Exception:
    return TransientError("the database is restarting")


def refuse(case_id: str) -> Callable[[Sequence[Message]], Exception]:
    def say(messages: Sequence[Message]) -> Exception:
        index = next(i for i, message in enumerate(messages) if message.subject == case_id)
        why = Rejection("rejected_by_target", "text holds a NUL byte", "properties.name", "22021")
        return RejectedRowsError({index: why})

    return say


async def test_the_newest_version_of_each_case_is_written() -> None:
    sink = ScriptedSink()
    records = [
        state_record("a", 1, offset=0),
        state_record("b", 5, offset=1),
        state_record("a", 3, offset=2),
        state_record("a", 2, offset=3),
    ]
    delivered = await Delivery("test", sink).deliver(records)
    assert delivered.ends == ["superseded", "written", "written", "superseded"]
    assert sink.rows == {"a": 3, "b": 5}


async def test_a_sink_of_events_gets_each_one_in_order() -> None:
    seen: list[str] = []

    def note(messages: Sequence[Message]) -> None:
        seen.extend(str(message.offset) for message in messages)

    sink = ScriptedSink(note, note)
    records = [
        Made(state_record("a", n).value, offset=n, topic="casewire.cases", key=f"demo/{n}".encode())
        for n in range(5)
    ]
    delivered = await Delivery("test", sink, pace=Pace(3)).deliver(records)
    assert delivered.ends == ["written"] * 5
    assert seen == ["0", "1", "2", "3", "4"]
    assert sink.writes == [3, 2]


async def test_a_target_that_is_down_is_tried_with_one_message_until_it_is_back() -> None:
    sink, waits = ScriptedSink(down, down, down), Waits()
    records = [state_record(name, 1) for name in "abc"]
    delivered = await Delivery("test", sink, sleep=waits).deliver(records)
    assert delivered.ends == ["written"] * 3
    assert sink.rows == {"a": 1, "b": 1, "c": 1}
    assert len(waits.seconds) == 3
    assert sink.opened == 1
    assert sink.writes == [3, 1, 1, 1, 2]


async def test_a_target_that_says_how_long_is_left_alone_for_so_long() -> None:
    sink, waits = ScriptedSink(lambda _: TransientError("slow down", retry_after=77)), Waits()
    await Delivery("test", sink, sleep=waits).deliver([state_record("a", 1)])
    assert waits.seconds == [77]


async def test_people_are_to_know_of_a_target_that_is_down_for_long_and_again_later() -> None:
    told: list[float] = []
    waits = Waits()

    async def tell(error: TransientError) -> None:
        told.append(sum(waits.seconds))

    asks = [lambda _: TransientError("slow down", retry_after=100)] * 7
    delivery = Delivery("test", ScriptedSink(*asks), sleep=waits)
    await delivery.deliver([state_record("a", 1)], tell)
    assert told == [TELL_SECONDS, 2 * TELL_SECONDS]
    await delivery.deliver([state_record("a", 2)], tell)
    assert len(told) == 2


async def test_what_was_written_of_a_batch_is_not_written_again() -> None:
    sink, waits = ScriptedSink(lambda _: [TransientError("busy")]), Waits()
    records = [state_record(name, 1) for name in "abc"]
    delivered = await Delivery("test", sink, sleep=waits).deliver(records)
    assert delivered.ends == ["written"] * 3
    assert sink.writes == [3, 1]


async def test_refused_rows_become_dead_letters_and_the_rest_is_written() -> None:
    sink = ScriptedSink(refuse("b"), down, refuse("a"))
    records = [state_record(name, 1, offset=i) for i, name in enumerate("abcd")]
    delivered = await Delivery("test", sink, sleep=Waits()).deliver(records)
    assert set(sink.rows) == {"c", "d"}
    assert delivered.ends == ["dead", "dead", "written", "written"]
    assert delivered.rejected == dict.fromkeys(
        (0, 1), Rejection("rejected_by_target", "text holds a NUL byte", "properties.name", "22021")
    )


async def test_a_target_may_refuse_one_message_and_take_the_others() -> None:
    sink = ScriptedSink(lambda _: [Rejection("rejected_by_target", "it is too old")])
    records = [state_record(name, 1, offset=i) for i, name in enumerate("ab")]
    delivered = await Delivery("test", sink).deliver(records)
    assert delivered.ends == ["dead", "written"]
    assert list(delivered.rejected) == [0]


async def test_what_is_no_state_becomes_a_dead_letter_and_holds_up_nothing() -> None:
    sink = ScriptedSink()
    records = [
        Made(b"{not json", offset=0),
        Made(b"[]", offset=1),
        Made(b'{"case_id": "x"}', offset=2),
        Made(state_record("b", 1).value, offset=3),
        Made(None, offset=4),  # a null that does not tell its version
        Made(state_record("b", 1).value, offset=5, headers=[("casewire-version", b"one")]),
        state_record("a", 1, offset=6),
    ]
    delivered = await Delivery("test", sink).deliver(records)
    assert list(delivered.rejected) == [0, 1, 2, 3, 4, 5]
    assert set(sink.rows) == {"a"}


async def test_a_null_of_a_form_is_one_that_is_gone() -> None:
    sink = MemorySink()
    delivery = Delivery("test", sink)
    topic, key = "casewire.form-state", b"demo/f1"
    for value, version in ((form_state("demo", version=3).to_json(), 3), (None, 4)):
        headers = [("casewire-version", b"%d" % version)]
        delivered = await delivery.deliver([Made(value, key, headers, topic)])
        assert delivered.ends == ["written"]
    assert sink.rows == {}
    assert sink.guards["demo", "form", "f1"].version == 4


async def test_what_a_rule_leaves_out_is_counted_by_the_rule() -> None:
    sink = ScriptedSink()
    choice = Choice(
        {"case_type": "patient"}, {"test-users": {"properties": {"owner_id": "tester"}}}
    )
    records = [
        state_record("a", 1),
        state_record("b", 1, case_type="other"),
        state_record("c", 1, owner_id="tester"),
    ]
    delivered = await Delivery("test", sink, choice).deliver(records)
    assert delivered.ends == ["written", "excluded by match", "excluded by test-users"]
    assert delivered.wanted() == [0]
    assert set(sink.rows) == {"a"}


async def test_what_only_the_operator_can_mend_stops_the_process() -> None:
    sink = ScriptedSink(lambda _: TargetError("the password is wrong"))
    with pytest.raises(TargetError):
        await Delivery("test", sink).deliver([state_record("a", 1)])
    assert sink.rows == {}


async def test_no_more_is_written_in_a_second_than_is_allowed() -> None:
    sink, waits = ScriptedSink(), Waits()
    delivery = Delivery("test", sink, pace=Pace(10, per_second=2), sleep=waits)
    await delivery.deliver([state_record(name, 1) for name in "abcde"])
    assert sink.writes == [2, 2, 1]
    assert len(waits.seconds) == 3
    assert 0.5 < max(waits.seconds) <= 1


async def test_whoever_watches_can_tell_that_a_write_goes_on() -> None:
    seen: list[bool] = []
    sink = ScriptedSink(lambda _: seen.append(delivery.busy))
    delivery = Delivery("test", sink)
    await delivery.deliver([state_record("a", 1)])
    assert seen == [True]
    assert not delivery.busy


class PreparingSink(ScriptedSink):
    """A sink that takes subjects, and none called `bad`."""

    def prepare(self, messages: Sequence[Message]) -> Sequence[str | Rejection]:
        refused = Rejection("invalid_field", "it is bad")
        return [refused if m.subject == "bad" else m.subject for m in messages]

    async def write_prepared(self, prepared: Sequence[str]) -> Sequence[Result]:
        self.writes.append(len(prepared))
        self.rows |= dict.fromkeys(prepared, 1)
        return ["written"] * len(prepared)


async def test_a_sink_that_prepares_is_asked_for_what_is_wanted_and_before_it_is_opened() -> None:
    sink = PreparingSink()
    delivery = Delivery("test", sink, Choice({}, {"others": {"case_type": "other"}}))
    records = [
        state_record("a", 1),
        state_record("bad", 1, case_type="other"),
        state_record("bad", 1),
        state_record("bad", 2),
        state_record("a", 2),
        Made(b"{not json"),
    ]
    ready = await delivery.ready(records)
    assert sink.opened == 0
    delivered = await delivery.settle(ready)
    assert delivered.ends == [
        "superseded", "excluded by others", "superseded", "dead", "written", "dead",
    ]  # fmt: skip
    assert [why.explanation for why in delivered.rejected.values()][:1] == ["it is bad"]
    assert sink.writes == [1]
    assert sink.rows == {"a": 1}


versions = st.tuples(st.sampled_from("abc"), st.integers(1, 9))


@given(st.lists(versions, max_size=30), st.lists(st.integers(1, 8), min_size=30, max_size=30))
def test_rows_do_not_depend_on_the_size_of_batches(
    written: list[tuple[str, int]], sizes: list[int]
) -> None:
    """In one batch, and cut anywhere: the greatest version of each case is what stays."""
    records = [state_record(name, number, n=str(number)) for name, number in written]

    async def rows(batches: Sequence[Sequence[Made]]) -> Mapping[str, object]:
        sink = MemorySink("delete")
        delivery = Delivery("test", sink)
        for batch in batches:
            assert not (await delivery.deliver(batch)).rejected
        return {case_id: row.version for (_, _, case_id), row in sink.rows.items()}

    starts = list(accumulate(sizes, initial=0))
    cut = [records[start:end] for start, end in pairwise(starts)]
    expected = {name: max(n for other, n in written if other == name) for name, _ in written}
    assert anyio.run(rows, [records]) == expected
    assert anyio.run(rows, cut) == expected


@given(st.lists(st.floats(0, 0.999), min_size=20, max_size=20))
def test_waits_double_within_their_bounds(jitter: list[float]) -> None:
    numbers = iter(jitter)
    waits = backoff(lambda: next(numbers))
    seconds = [next(waits) for _ in range(20)]
    assert FIRST_WAIT_SECONDS / 2 <= seconds[0] <= FIRST_WAIT_SECONDS
    assert all(second <= LONGEST_WAIT_SECONDS for second in seconds)
    assert seconds[-1] >= LONGEST_WAIT_SECONDS / 2
