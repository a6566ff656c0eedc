"""Batches gathered for one write."""

from collections.abc import AsyncIterator, Sequence

import anyio
import anyio.lowlevel
import pytest
from faust.types import TP
from hypothesis import given, strategies as st

from streams.batches.batch import Batch
from streams.gathering import Gathering
from tests.streams.made import Made

pytestmark = pytest.mark.anyio


def batch(size: int, offset: int = 0) -> Batch:
    return Batch(TP("casewire.case-state", 0), [Made(b"x" * 10, offset=offset)] * size)


async def at_hand(batches: Sequence[Batch]) -> AsyncIterator[Batch]:
    for each in batches:
        yield each


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 50), st.integers(1, 500))
def test_all_come_in_order_and_no_group_grows_once_it_is_full(
    sizes: list[int], rows: int, size: int
) -> None:
    batches = [batch(number, offset) for offset, number in enumerate(sizes)]

    async def gathered() -> Sequence[Sequence[Batch]]:
        gathering = Gathering(rows=rows, size=size, seconds=0)
        return [group async for group in gathering.groups(at_hand(batches))]

    groups = anyio.run(gathered)
    assert [each for group in groups for each in group] == batches
    for group in groups:
        before_last = sum(len(each.records) for each in group[:-1])
        assert before_last < rows
        assert before_last * 10 < size


async def test_a_batch_alone_is_written_at_once_and_a_slow_sink_waits_for_more() -> None:
    send, receive = anyio.create_memory_object_stream[Batch](9)
    one, two = batch(1, 1), batch(1, 2)
    async with send, receive:
        await send.send(one)
        groups = Gathering(rows=9, size=999, seconds=0).groups(receive.__aiter__())
        assert await anext(groups) == [one]
        await groups.aclose()

        patient = Gathering(rows=2, size=999, seconds=60)
        groups = patient.groups(receive.__aiter__())
        await send.send(one)
        async with anyio.create_task_group() as tasks:

            async def later() -> None:
                while not patient.waiting:
                    await anyio.lowlevel.checkpoint()
                await send.send(two)

            tasks.start_soon(later)
            with anyio.fail_after(30):
                assert await anext(groups) == [one, two]
        assert not patient.waiting
        await groups.aclose()
