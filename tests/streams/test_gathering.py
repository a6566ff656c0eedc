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


async def test_what_comes_while_a_group_is_written_is_the_next_group_and_no_more_is_read() -> None:
    read: list[int] = []

    async def batches() -> AsyncIterator[Batch]:
        for offset in range(9):
            read.append(offset)
            yield batch(1, offset)
            await anyio.lowlevel.checkpoint()

    groups = Gathering(rows=3, size=999, seconds=0).groups(batches())
    with anyio.fail_after(30):
        first = await anext(groups)
        await anyio.wait_all_tasks_blocked()  # the first group is being written
        assert len(read) == len(first) + 3 + 1
        rest = [[each.offset for each in group] async for group in groups]
    assert rest[0] == [len(first) + number for number in range(3)]
    assert [*range(len(first)), *(offset for group in rest for offset in group)] == [*range(9)]


async def test_of_a_large_group_only_a_part_is_read_while_another_is_written() -> None:
    read: list[int] = []

    async def batches() -> AsyncIterator[Batch]:
        for offset in range(20):
            read.append(offset)
            yield batch(1000, offset)

    groups = Gathering(rows=5000, size=10**9, seconds=60).groups(batches())
    with anyio.fail_after(30):
        assert len(await anext(groups)) == 5
        await anyio.wait_all_tasks_blocked()
        assert len(read) == 5 + 2 + 1
        assert [len(group) async for group in groups] == [5, 5, 5]


async def test_what_ends_the_reading_comes_after_what_was_read() -> None:
    async def batches() -> AsyncIterator[Batch]:
        yield batch(1, 1)
        raise ValueError

    groups = Gathering(rows=9, size=999, seconds=60).groups(batches())
    with anyio.fail_after(30):
        assert [each.offset for each in await anext(groups)] == [1]
        with pytest.raises(ValueError):  # noqa: PT011 - this very one
            await anext(groups)


def test_a_batch_is_revoked_when_the_consumer_has_let_go_of_its_message() -> None:
    held = {1}
    one = batch(1)
    one.carried_by(held)
    assert not one.revoked
    del held
    assert one.revoked
