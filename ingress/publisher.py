"""The way of a captured event into Kafka: durable, bounded, and able to outlive its producer."""

import asyncio
import contextlib
import hashlib
import math
import time
from collections.abc import Sequence
from typing import Final, Literal, Protocol, TypeAlias

import structlog

from ingress.lanes import Lanes, Pending, Producer, RefusedError
from ingress.limits import Budget
from ingress.producer import abandon, connect
from ingress.records import Event, Record, captured_record, claim_records
from ingress.settings import IngressSettings
from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import LARGE_RECORD, MEBIBYTE

Place: TypeAlias = Literal["kafka", "spool"]

#: One request carries a batch of every partition; the broker hangs up on one above 100 MiB
#: (`socket.request.max.bytes`), and an idempotent producer would send it again for ever. What
#: comes from the spool (`deliver`) has its part of it.
REQUEST_BYTES: Final = 80 * MEBIBYTE
DELIVERY_BYTES: Final = 16 * MEBIBYTE
DELIVERY_EVENTS: Final = 10_000

_RETRY_SECONDS: Final = 1.0
_STALLED_SECONDS: Final = 30.0
_FLUSH_SECONDS: Final = 2.0
_TICK_SECONDS: Final = 0.25

_log = structlog.get_logger(__name__)


class Publisher(Protocol):
    """Makes captured events durable."""

    async def start(self) -> None:
        """Begin to connect; return at once, whether or not Kafka is there."""

    async def publish(self, event: Event) -> Place:
        """Return when the event is durable, and not before.

        Raises UnavailableError if it is not, or not known to be, in time. It may still be stored
        later: a deadline does not withdraw what is in flight (measured.md §3).
        """

    def ready(self) -> str | None:
        """Return None if events can be stored, else the reason why not."""

    async def stop(self) -> None:
        """Take no more, wait for what is in flight, close; within five seconds."""


class _Supervisor:
    """Keeps a producer connected, and the lanes on it. `reason` is why nothing can be stored.

    A producer that failed to deliver a single batch is broken: its sequence numbers have a hole
    that the broker never forgives. So is one that gets nothing confirmed for half a minute.
    """

    def __init__(self, kafka: KafkaSettings, seconds: float) -> None:
        self._kafka = kafka
        self._seconds = seconds
        self._producer: Producer | None = None
        self._broken = asyncio.Event()
        self.late = f"Kafka has not confirmed the event within {seconds} s"
        self.reason: str | None = "Kafka has not been reached yet"
        self.lanes = Lanes(kafka.topic, self._failed)

    def _failed(self, producer: Producer, error: Exception) -> None:
        if producer is self._producer:
            _log.warning("a batch failed", error=type(error).__name__)
            self._broken.set()

    async def watch(self) -> None:
        """Hold the deadlines: one timer for all is cheaper than one a request."""
        slow = f"Kafka has confirmed nothing for {self._seconds} s"
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.lanes.expire(time.monotonic(), self.late)
            if self.reason is None and self.lanes.stalled(self._seconds):
                self.reason = slow
                _log.warning("events cannot be stored", reason=slow)
            elif self.reason == slow and not self.lanes.stalled(self._seconds):
                self.reason = None if self._producer is not None else "Kafka is connected anew"

    async def supervise(self) -> None:
        """Connect, use the producer until it is broken, throw it away, and so on."""
        while True:
            try:
                connection = await connect(self._kafka)
            except UnavailableError as error:
                self.reason = str(error)
                _log.warning("events cannot be stored", reason=self.reason)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self._broken.clear()
            self._producer = connection.producer
            self.lanes.use(connection.producer, connection.partitions)
            self.reason = None
            try:
                await self._until_broken()
            finally:
                self._producer = None
                await self.lanes.leave()
                await abandon(connection.producer)
            _log.warning("the producer is replaced")

    async def _until_broken(self) -> None:
        while not self._broken.is_set() and not self.lanes.stalled(_STALLED_SECONDS):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._broken.wait(), 1.0)


def ended(what: str, tasks: Sequence[asyncio.Task[None]]) -> str | None:
    """Return which error ended one of the tasks, which go on until they are cancelled."""
    for task in tasks:
        if task.done() and not task.cancelled():
            return f"{what} has ended ({type(task.exception()).__name__})"
    return None


class KafkaPublisher:
    """Publishes with `acks=all` from an idempotent producer, which is replaced when it is broken.

    While nothing has been confirmed for as long as the deadline, nothing new is tried.
    """

    def __init__(self, kafka: KafkaSettings, settings: IngressSettings) -> None:
        self._seconds = settings.kafka_timeout_seconds
        self._budget = Budget(
            settings.max_in_flight_events, min(settings.max_in_flight_bytes, REQUEST_BYTES)
        )
        self._deliveries = Budget(DELIVERY_EVENTS, DELIVERY_BYTES)
        self._supervisor = _Supervisor(kafka, self._seconds)
        self._tasks: Sequence[asyncio.Task[None]] = ()

    async def start(self) -> None:
        self._tasks = (
            asyncio.create_task(self._supervisor.supervise()),
            asyncio.create_task(self._supervisor.watch()),
        )

    async def publish(self, event: Event) -> Literal["kafka"]:
        if self._supervisor.reason is not None:
            raise UnavailableError(self._supervisor.reason)
        await self._publish(event, self._budget, time.monotonic() + self._seconds)
        return "kafka"

    async def deliver(self, events: Sequence[Event]) -> Sequence[Event]:
        """Publish spooled events, in order, without a deadline; return those that Kafka refuses.

        They have a budget of their own, whatever is in flight of new events. Raises
        UnavailableError if Kafka does not take the others; any of them may be written then.
        """
        if self._supervisor.reason is not None:
            raise UnavailableError(self._supervisor.reason)
        publishing = [
            asyncio.create_task(self._publish(event, self._deliveries, math.inf))
            for event in events
        ]
        try:
            results = await asyncio.gather(*publishing, return_exceptions=True)
        finally:
            for task in publishing:
                task.cancel()
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, RefusedError):
                raise result
        outcomes = zip(events, results, strict=True)
        return [event for event, result in outcomes if isinstance(result, RefusedError)]

    def ready(self) -> str | None:
        return self._supervisor.reason

    def live(self) -> str | None:
        """Return why this process must be started anew: what connects to Kafka has ended."""
        return ended("what connects to Kafka", self._tasks)

    async def stop(self) -> None:
        self._supervisor.reason = "the ingress is shutting down"
        await self._supervisor.lanes.finish(_FLUSH_SECONDS)
        self._supervisor.lanes.expire(math.inf, self._supervisor.reason)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _publish(self, event: Event, budget: Budget, deadline: float) -> None:
        record = captured_record(event)
        size = record.size
        if size <= LARGE_RECORD:
            try:
                await self._store(record, size, budget, deadline)
            except RefusedError:
                if not event.body:
                    raise
            else:
                return
        sha256 = (await asyncio.to_thread(hashlib.sha256, event.body)).hexdigest()
        for part in claim_records(event, sha256):
            if time.monotonic() > deadline:
                raise UnavailableError(self._supervisor.late)
            await self._store(part, part.size, budget, deadline)

    async def _store(self, record: Record, size: int, budget: Budget, deadline: float) -> None:
        if not budget.take(size, events=1):
            raise UnavailableError("too many events are on their way to Kafka")
        pending = Pending(record, size, budget, deadline)
        lane = self._supervisor.lanes.add(pending)
        try:
            await pending.acked
        except asyncio.CancelledError:
            lane.withdraw(pending)
            raise
