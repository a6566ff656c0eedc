"""Micro-batches for one partition, without a timer.

Whatever arrives while the previous batch is in flight is the next one (measured.md §3).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from ingress.records import Record
from schemas.errors import UnavailableError

#: A record whose batch failed goes to the next producer once, since the fault may have been with
#: the producer or with another record; then its failure is told.
MAX_TRIES: Final = 2


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
    """A record on its way. `acked` is cancelled when nobody waits for it any more."""

    __slots__ = ("acked", "record", "size", "tries")

    def __init__(self, record: Record, size: int, acked: asyncio.Future[None]) -> None:
        self.record = record
        self.size = size
        self.acked = acked
        self.tries = 0


class Lane:
    """The records for one partition: those that wait, and the batch that is in flight.

    `gone` is called with each record that is neither any more, `failed` with a producer that
    could not deliver a batch. `sent_at` is when the batch in flight was sent (monotonic seconds).
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        gone: Callable[[Pending], None],
        failed: Callable[[Producer, Exception], None],
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._gone = gone
        self._failed = failed
        self._waiting: dict[Pending, None] = {}
        self._in_flight: list[Pending] = []
        self._sending: asyncio.Task[None] | None = None
        self.sent_at: float | None = None

    def add(self, pending: Pending, producer: Producer | None) -> None:
        self._waiting[pending] = None
        if producer is not None:
            self.send(producer)

    def withdraw(self, pending: Pending) -> None:
        """Forget a record, unless it is in flight: then it cannot be taken back."""
        if pending in self._waiting:
            del self._waiting[pending]
            self._gone(pending)

    def send(self, producer: Producer) -> None:
        """See to it that what waits is sent."""
        if self._sending is None and self._waiting:
            self._sending = asyncio.create_task(self._drain(producer))

    async def finish(self, seconds: float) -> None:
        """Wait until nothing is in flight or waiting, but not for longer than that."""
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=seconds)

    async def interrupt(self) -> None:
        """Leave the batch in flight to its fate; its records wait again, for another producer."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])

    async def _drain(self, producer: Producer) -> None:
        try:
            while self._waiting:
                batch = self._next_batch(producer)
                self.sent_at = time.monotonic()
                await (await producer.send_batch(batch, self._topic, partition=self._partition))
                self._acknowledge()
        except asyncio.CancelledError:
            self._return()
        except Exception as error:  # noqa: BLE001 - whatever it is, this producer is done for
            self._return()
            self._failed(producer, error)
        finally:
            self.sent_at = None
            self._sending = None

    def _next_batch(self, producer: Producer) -> Batch:
        batch = producer.create_batch()
        for pending in self._waiting:
            record = pending.record
            added = batch.append(
                timestamp=None, key=record.key, value=record.value, headers=record.headers
            )
            if added is None:
                break
            pending.tries += 1
            self._in_flight.append(pending)
        for pending in self._in_flight:
            del self._waiting[pending]
        return batch

    def _acknowledge(self) -> None:
        for pending in self._in_flight:
            if not pending.acked.done():
                pending.acked.set_result(None)
            self._gone(pending)
        self._in_flight.clear()

    def _return(self) -> None:
        again: dict[Pending, None] = {}
        for pending in self._in_flight:
            self._waiting.pop(pending, None)
            if not pending.acked.done() and pending.tries < MAX_TRIES:
                again[pending] = None
                continue
            if not pending.acked.done():
                pending.acked.set_exception(
                    UnavailableError("Kafka did not take the event; the broker's log tells why")
                )
            self._gone(pending)
        self._in_flight.clear()
        self._waiting = again | self._waiting
