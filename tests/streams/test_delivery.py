"""The runner between a topic and a sink, without Kafka."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise

import anyio
import pytest
from hypothesis import given, strategies as st

from schemas.case import CaseState
from schemas.dead_letter import DeadLetter
from schemas.errors import RejectedRowsError, Rejection, TargetError, TransientError
from sinks.base import Outcome
from sinks.memory import MemorySink
from streams.delivery import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, Delivery, backoff
from tests.streams.made import Made, state_record

pytestmark = pytest.mark.anyio


class ScriptedSink:
    """A sink that fails as its script says, then holds what it was given."""

    def __init__(self, *script: Callable[[Sequence[CaseState]], Exception | None]) -> None:
        self.script = list(script)
        self.rows: dict[str, CaseState] = {}
        self.opened = 0
        self.writes = 0

    async def open(self) -> None:
        self.opened += 1

    async def write(self, states: Sequence[CaseState]) -> Sequence[Outcome]:
        self.writes += 1
        error = self.script.pop(0)(states) if self.script else None
        if error is not None:
            raise error
        assert len({state.case_id for state in states}) == len(states)
        self.rows |= {state.case_id: state for state in states}
        return ["written" for _ in states]

    async def close(self) -> None:
        self.rows = {}


class Waits:
    """Waits no time, and remembers how long it should have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def down(_states: Sequence[CaseState]) -> Exception:
    return TransientError("the database is restarting")


def refuse(case_id: str) -> Callable[[Sequence[CaseState]], Exception]:
    def say(states: Sequence[CaseState]) -> Exception:
        index = next(i for i, state in enumerate(states) if state.case_id == case_id)
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
    assert await Delivery("test", sink).deliver(records) == []
    assert {case_id: row.version for case_id, row in sink.rows.items()} == {"a": 3, "b": 5}


async def test_a_target_that_is_down_is_tried_until_it_is_back() -> None:
    sink, waits = ScriptedSink(down, down, down), Waits()
    assert await Delivery("test", sink, waits).deliver([state_record("a", 1)]) == []
    assert sink.rows["a"].version == 1
    assert len(waits.seconds) == 3
    assert sink.opened == 1


async def test_refused_rows_become_dead_letters_and_the_rest_is_written() -> None:
    sink = ScriptedSink(refuse("b"), down, refuse("d"))
    records = [state_record(name, 1, offset=i) for i, name in enumerate("abcd")]
    letters = await Delivery("test", sink, Waits()).deliver(records)
    assert set(sink.rows) == {"a", "c"}
    found = [DeadLetter.from_json(letter.value or b"") for letter in letters]
    assert [(letter.stage, letter.cause, letter.path) for letter in found] == [
        ("sink:test", "rejected_by_target", "properties.name")
    ] * 2
    assert [letter.original["offset"] for letter in found] == [1, 3]
    assert all(letter.target_error == "22021" for letter in found)


async def test_what_is_no_state_becomes_a_dead_letter_and_holds_up_nothing() -> None:
    sink = ScriptedSink()
    records = [
        Made(b"{not json", offset=0),
        Made(b"[]", offset=1),
        Made(b'{"case_id": "x"}', offset=2),
        Made(None, offset=3),  # a null that does not tell its version
        state_record("a", 1, offset=4),
    ]
    letters = await Delivery("test", sink).deliver(records)
    assert [DeadLetter.from_json(item.value or b"").original["offset"] for item in letters] == [
        0,
        1,
        2,
        3,
    ]
    assert set(sink.rows) == {"a"}


async def test_what_only_the_operator_can_mend_stops_the_process() -> None:
    sink = ScriptedSink(lambda _states: TargetError("the password is wrong"))
    with pytest.raises(TargetError):
        await Delivery("test", sink).deliver([state_record("a", 1)])
    assert sink.rows == {}


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
            assert await delivery.deliver(batch) == []
        return {case_id: row.version for (_, case_id), row in sink.rows.items()}

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
