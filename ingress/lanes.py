"""Micro-batches for each partition.

Whatever arrives while the previous batch is in flight is the next one (measured.md §3). A request
to Kafka costs as much as five of HQ's, so small batches do not follow each other at once.
"""

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from ingress.limits import Budget
from ingress.records import Record
from schemas.errors import UnavailableError
from schemas.partitioner import partition_of

#: A record whose batch failed goes to the next producer once, since the fault may have been with
#: the producer or with another record; then its failure is told.
MAX_TRIES: Final = 2

#: Captured events for one partition before the next has its turn.
CAPTURED_IN_A_ROW: Final = 512

#: A batch of fewer records than this goes no sooner after the one before it than that.
ENOUGH_RECORDS: Final = 32
PACE_SECONDS: Final = 0.008

_REFUSALS: Final = (MessageSizeTooLargeError, RecordListTooLargeError)


class RefusedError(UnavailableError):
    """The broker will not take this very record, whoever brings it."""


class Batch(Protocol):
    """What of aiokafka's BatchBuilder a lane needs."""

    def append(
        self,
        *,
        timestamp: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]],
    ) -> object | None:
        """Add a record; return None if there is no room for it."""


class Producer(Protocol):
    """What of AIOKafkaProducer a lane needs."""

    def create_batch(self) -> Batch: ...

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> Awaitable[object]:
        """Queue a batch; return what to await until the broker has confirmed it."""


class Pending:
    """A record on its way. `acked` is cancelled when nobody waits for it any more.

    `size` bytes of `budget` are given back when it is neither waiting nor in flight. `deadline` is
    in monotonic seconds. One that is `alone` shares its batch with no other.
    """

    __slots__ = ("acked", "alone", "budget", "deadline", "record", "size", "tries")

    def __init__(self, record: Record, size: int, budget: Budget, deadline: float) -> None:
        self.record = record
        self.size = size
        self.budget = budget
        self.deadline = deadline
        self.acked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tries = 0
        self.alone = False

    def gone(self) -> None:
        self.budget.give_back(self.size, events=1)

    def fail(self, error: UnavailableError) -> None:
        if not self.acked.done():
            self.acked.set_exception(error)


class Lane:
    """The records for one partition: those that wait, and the batch that is in flight.

    `failed` is called with a producer that could not deliver a batch. `sent_at` is when the batch
    in flight was sent (monotonic seconds).
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        failed: Callable[[Producer, Exception], None],
        *,
        pace_seconds: float = PACE_SECONDS,
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._failed = failed
        self._waiting: dict[Pending, None] = {}
        self._in_flight: list[Pending] = []
        self._sending: asyncio.Task[None] | None = None
        self._pace_seconds = pace_seconds
        self._sent_last = -math.inf
        self._enough: asyncio.Event | None = None
        self.sent_at: float | None = None

    def add(self, pending: Pending, producer: Producer | None) -> None:
        self._waiting[pending] = None
        if self._sending is None and producer is not None:
            self.send(producer)
        elif self._enough is not None and len(self._waiting) >= ENOUGH_RECORDS:
            self._enough.set()

    def withdraw(self, pending: Pending) -> None:
        """Forget a record, unless it is in flight: then it cannot be taken back."""
        if pending in self._waiting:
            del self._waiting[pending]
            pending.gone()

    def expire(self, now: float, reason: str) -> None:
        """Fail the records whose deadline is over."""
        for pending in [item for item in self._waiting if item.deadline <= now]:
            pending.fail(UnavailableError(reason))
            self.withdraw(pending)
        for pending in self._in_flight:
            if pending.deadline <= now:
                pending.fail(UnavailableError(reason))

    def send(self, producer: Producer) -> None:
        """See to it that what waits is sent."""
        if self._sending is None and self._waiting:
            self._sending = asyncio.create_task(self._drain(producer))

    async def finish(self, seconds: float) -> None:
        """Wait for all for which somebody waits, but not for longer than that."""
        pending = [item.acked for item in (*self._waiting, *self._in_flight)]
        if pending:
            await asyncio.wait(pending, timeout=seconds)

    async def interrupt(self) -> None:
        """Leave the batch in flight to its fate; its records wait again, for another producer."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])

    async def _drain(self, producer: Producer) -> None:
        try:
            while self._waiting:
                await self._pace()
                if not self._waiting:  # all were withdrawn
                    break
                batch = self._next_batch(producer)
                self.sent_at = self._sent_last = time.monotonic()
                sent = await producer.send_batch(batch, self._topic, partition=self._partition)
                confirmed = asyncio.ensure_future(sent)
                confirmed.add_done_callback(_take_note)
                await asyncio.shield(confirmed)
                for pending in self._in_flight:
                    if not pending.acked.done():
                        pending.acked.set_result(None)
                    pending.gone()
                self._in_flight.clear()
        except asyncio.CancelledError:
            self._return(refused=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, this producer is done for
            self._return(refused=isinstance(error, _REFUSALS))
            self._failed(producer, error)
        finally:
            self.sent_at = None
            self._sending = None

    async def _pace(self) -> None:
        """Let a small batch grow, if the one before it went only just now."""
        early = self._sent_last + self._pace_seconds - time.monotonic()
        if early <= 0 or len(self._waiting) >= ENOUGH_RECORDS:
            return
        self._enough = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(early, self._enough.set)
        try:
            await self._enough.wait()
        finally:
            timer.cancel()
            self._enough = None

    def _next_batch(self, producer: Producer) -> Batch:
        batch = producer.create_batch()
        for pending in self._waiting:
            if pending.alone and self._in_flight:
                break
            record = pending.record
            added = batch.append(
                timestamp=None, key=record.key, value=record.value, headers=record.headers
            )
            if added is None:
                break
            pending.tries += 1
            self._in_flight.append(pending)
            if pending.alone:
                break
        for pending in self._in_flight:
            del self._waiting[pending]
        return batch

    def _return(self, *, refused: bool) -> None:
        """Decide what becomes of the batch in flight: its records go again, or fail.

        Of a batch that is refused each goes alone, so that the guilty one is told from the others.
        """
        again: dict[Pending, None] = {}
        guilty = refused and len(self._in_flight) == 1
        for pending in self._in_flight:
            self._waiting.pop(pending, None)
            if refused and not guilty:
                pending.alone = True
                pending.tries = 0
            if guilty:
                pending.fail(RefusedError("Kafka refuses the event: see `casewire topics check`"))
            elif pending.tries >= MAX_TRIES:
                pending.fail(
                    UnavailableError("Kafka did not take the event; the broker's log tells why")
                )
            if pending.acked.done():
                pending.gone()
            else:
                again[pending] = None
        self._in_flight.clear()
        self._waiting = again | self._waiting


def _take_note(confirmed: asyncio.Future[object]) -> None:
    """Read an error for which nobody waits any more: the lane was interrupted before it came."""
    if not confirmed.cancelled():
        confirmed.exception()


class Lanes:
    """A lane for each partition of each topic, made when it is needed."""

    def __init__(
        self, topic: Callable[[str], str], failed: Callable[[Producer, Exception], None]
    ) -> None:
        self._topic = topic
        self._failed = failed
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._producer: Producer | None = None
        self._partitions: Mapping[str, int] = {}
        # Processes that start together begin at different partitions.
        self._captured = os.getpid() * CAPTURED_IN_A_ROW

    def add(self, pending: Pending) -> Lane:
        """Put a record in its lane, and return that."""
        record = pending.record
        partition = self._partition(record)
        lane = self._lanes.get((record.topic, partition))
        if lane is None:
            lane = Lane(self._topic(record.topic), partition, self._failed)
            self._lanes[record.topic, partition] = lane
        lane.add(pending, self._producer)
        return lane

    def _partition(self, record: Record) -> int:
        """Return the partition of a record: its key's, but for captured events one after the other.

        No two captured events share a key. A broker that flushes each batch to disk takes one
        batch of all that wait five times as fast as eight small ones.
        """
        count = self._partitions[record.topic]
        if record.topic != "captured":
            return partition_of(record.key, count)
        self._captured += 1
        return self._captured // CAPTURED_IN_A_ROW % count

    def use(self, producer: Producer, partitions: Mapping[str, int]) -> None:
        self._partitions = partitions
        self._producer = producer
        for lane in self._all():
            lane.send(producer)

    async def leave(self) -> None:
        """Use the producer no more."""
        self._producer = None
        await asyncio.gather(*(lane.interrupt() for lane in self._all()))

    async def finish(self, seconds: float) -> None:
        await asyncio.gather(*(lane.finish(seconds) for lane in self._all()))

    def expire(self, now: float, reason: str) -> None:
        for lane in self._all():
            lane.expire(now, reason)

    def stalled(self, seconds: float) -> bool:
        """Return whether a batch has been in flight for longer than that."""
        sent = [lane.sent_at for lane in self._all() if lane.sent_at is not None]
        return bool(sent) and time.monotonic() - min(sent) > seconds

    def _all(self) -> Iterable[Lane]:
        return self._lanes.values()
