"""How records are put into batches."""

import asyncio
import gc
import math
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

import pytest

from ingress.lanes import ENOUGH_RECORDS, Batch, Lane, Pending
from ingress.limits import Budget
from ingress.records import Record

pytestmark = pytest.mark.anyio


class Keys(list[bytes | None]):
    """A batch that has room for all, of which the keys are kept."""

    def append(  # type: ignore[override]
        self,
        *,
        timestamp: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]],
    ) -> object:
        super().append(key)
        return self


@dataclass(slots=True)
class Taker:
    """A producer that has every batch confirmed at once."""

    taken: list[Keys] = field(default_factory=list)

    def create_batch(self) -> Keys:
        return Keys()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> Awaitable[object]:
        assert isinstance(batch, Keys)
        self.taken.append(batch)
        confirmed = asyncio.get_running_loop().create_future()
        confirmed.set_result(None)
        return confirmed


def a_lane(pace_seconds: float) -> Lane:
    return Lane("t", 0, lambda _, error: pytest.fail(str(error)), pace_seconds=pace_seconds)


def add(lane: Lane, producer: Taker, key: bytes) -> Pending:
    pending = Pending(Record("captured", key, b"", []), 0, Budget(100, 0), math.inf)
    pending.budget.take(0, events=1)
    lane.add(pending, producer)
    return pending


async def test_the_first_record_goes_at_once_and_a_small_batch_waits_to_grow() -> None:
    lane, producer = a_lane(3600), Taker()
    await add(lane, producer, b"first").acked
    keys = [b"%d" % number for number in range(ENOUGH_RECORDS)]
    waiting = []
    for key in keys:
        waiting.append(add(lane, producer, key))
        await asyncio.sleep(0)
    await asyncio.gather(*(pending.acked for pending in waiting))
    assert producer.taken == [[b"first"], keys]


async def test_a_small_batch_goes_when_its_time_has_come() -> None:
    lane, producer = a_lane(0.01), Taker()
    for key in (b"first", b"second", b"third"):
        await add(lane, producer, key).acked
    assert producer.taken == [[b"first"], [b"second"], [b"third"]]


async def test_no_batch_goes_if_all_that_waited_for_it_were_withdrawn() -> None:
    lane, producer = a_lane(0.01), Taker()
    await add(lane, producer, b"first").acked
    others = asyncio.all_tasks()
    second = add(lane, producer, b"second")
    await asyncio.sleep(0)
    lane.withdraw(second)
    await asyncio.wait(asyncio.all_tasks() - others)
    assert producer.taken == [[b"first"]]


@dataclass(slots=True)
class Slow(Taker):
    """A producer that has a batch confirmed, or not, when the test says so."""

    batch: asyncio.Future[None] = field(default_factory=asyncio.Future)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> Awaitable[object]:
        self.asked.set()
        return asyncio.shield(self.batch)  # as aiokafka does


async def test_the_error_of_a_batch_that_was_left_to_its_fate_is_no_news_to_the_loop() -> None:
    lane, producer = a_lane(0), Slow()
    told: list[object] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: told.append(context))
    pending = add(lane, producer, b"first")
    await producer.asked.wait()
    await asyncio.sleep(0)
    await lane.interrupt()
    producer.batch.set_exception(OSError())
    await asyncio.sleep(0)
    producer.batch = loop.create_future()
    gc.collect()
    loop.set_exception_handler(before)
    assert told == []
    assert not pending.acked.done()
