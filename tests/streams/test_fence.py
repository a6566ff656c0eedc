"""What others wrote to a changelog, and whether a worker gets on: pure parts."""

from collections.abc import Sequence

import pytest
from aiokafka.errors import KafkaConnectionError
from hypothesis import given, strategies as st

from streams.fence import ChangelogReader, Ends, overwritten
from streams.republish import state_headers
from streams.watchdog import PATIENCE, Watchdog
from tests.servers import free_port
from tests.streams.made import Made, state

writes = st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=30)


@given(writes, st.integers(0, 9), st.booleans())
def test_the_gaps_are_what_others_wrote(
    written: Sequence[tuple[bool, int]], start: int, looks: bool
) -> None:
    """Ours are told by their offsets; the broker may be asked where the partition ends."""
    ends, offset = Ends(), start
    others: set[int] = set()
    ends.recovered(3, start)
    for mine, count in written:
        if mine:
            ends.wrote(3, offset, count)
        else:
            others.update(range(offset, offset + count))
            if looks:
                ends.seen(3, offset + count)
        offset += count
    ends.seen(3, offset)
    assert {n for gap in ends.gaps for n in range(gap.start, gap.stop)} == others
    assert ends.known == {3: offset}


@pytest.mark.anyio
async def test_a_reader_that_found_no_broker_tries_again() -> None:
    reader = ChangelogReader(
        {"bootstrap_servers": f"127.0.0.1:{free_port()}"}, "casewire.case-state"
    )
    for _ in range(2):
        with pytest.raises(KafkaConnectionError):
            await reader.ends([0])
    await reader.stop()


def test_partitions_of_others_are_not_looked_at() -> None:
    ends = Ends()
    ends.recovered(1, 10)
    ends.lost([1])
    ends.seen(1, 20)
    assert (ends.known, ends.gaps) == ({}, [])


def written_by(writer: bytes, version: int, key: bytes = b"demo/c1") -> Made:
    headers = [("casewire-version", str(version).encode()), ("casewire-writer", writer)]
    return Made(b"{}", key, headers)


def test_only_lower_versions_of_others_are_written_over() -> None:
    held = {b"demo/c1": 5, b"demo/c2": 5}
    records = [
        written_by(b"me", 1),
        written_by(b"other", 5, b"demo/c2"),
        written_by(b"other", 4),
        written_by(b"other", 9, b"demo/unknown"),
    ]
    assert overwritten(records, held, b"me") == ({b"demo/c1"}, False)
    assert overwritten([written_by(b"other", 6)], held, b"me") == (set(), True)


def test_a_state_published_again_has_the_headers_it_had() -> None:
    value = state("c1", 7).to_json()
    headers = dict(state_headers("case", "w")(b"demo/c1", value))
    assert headers["ce_subject"] == b"c1"
    assert headers["casewire-version"] == b"7"
    assert headers["ce_type"] == b"org.commcare.case.state"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_standing_still_with_work_left_is_noticed_and_nothing_else(steps: list[int]) -> None:
    watchdog = Watchdog()
    end, done, still = 1000, 0, 0
    for number, step in enumerate(steps):
        done += step
        still = 0 if step or number == 0 else still + 1
        assert watchdog.look({"p": end}, {"p": done}) == (["p"] if still >= PATIENCE else [])


@given(st.integers(0, 9), st.integers(1, 30))
def test_a_partition_with_nothing_left_may_stand_still(end: int, looks: int) -> None:
    watchdog = Watchdog()
    for _ in range(looks):
        assert watchdog.look({"p": end}, {"p": end}) == []


def test_a_rest_begins_anew() -> None:
    watchdog = Watchdog()
    for _ in range(PATIENCE):
        watchdog.look({"p": 9}, {"p": 1})
    watchdog.rest()
    assert watchdog.look({"p": 9}, {"p": 1}) == []


def test_what_is_not_looked_at_begins_anew() -> None:
    watchdog = Watchdog()
    for _ in range(PATIENCE):
        watchdog.look({"a rebalance": 1}, {})
    watchdog.look({"p": 1}, {"p": 1})
    assert watchdog.look({"a rebalance": 1}, {}) == []
