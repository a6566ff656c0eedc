"""The way of a captured event into Kafka: durable, bounded, and able to outlive its producer."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Mapping
from typing import Final, Protocol

import structlog

from ingress.lanes import Lane, Pending, Producer
from ingress.limits import Budget
from ingress.producer import abandon, connect
from ingress.records import Event, Record, captured_record, claim_records, partition_for
from ingress.settings import IngressSettings
from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import LARGE_RECORD, MEBIBYTE

#: One request carries a batch of every partition; the broker hangs up on one above 100 MiB
#: (`socket.request.max.bytes`), and an idempotent producer would send it again for ever.
REQUEST_BYTES: Final = 96 * MEBIBYTE

_RETRY_SECONDS: Final = 1.0
_STALLED_SECONDS: Final = 30.0
_FLUSH_SECONDS: Final = 2.0

_log = structlog.get_logger(__name__)


class Publisher(Protocol):
    """Makes captured events durable."""

    async def start(self) -> None:
        """Begin to connect; return at once, whether or not Kafka is there."""

    async def publish(self, event: Event) -> None:
        """Return when the event is durable, and not before.

        Raises UnavailableError if it is not, or not known to be, in time. It may still be stored
        later: a deadline does not withdraw what is in flight (measured.md §3).
        """

    def ready(self) -> str | None:
        """Return None if events can be stored, else the reason why not."""

    async def stop(self) -> None:
        """Take no more, wait for what is in flight, close; within five seconds."""


class KafkaPublisher:
    """Publishes with `acks=all` from an idempotent producer, which is replaced when it is broken.

    A producer that failed to deliver a single batch is broken: its sequence numbers have a hole
    that the broker never forgives. So is one that gets nothing confirmed for half a minute.
    """

    def __init__(self, kafka: KafkaSettings, settings: IngressSettings) -> None:
        self._kafka = kafka
        self._seconds = settings.kafka_timeout_seconds
        self._budget = Budget(
            settings.max_in_flight_events, min(settings.max_in_flight_bytes, REQUEST_BYTES)
        )
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._producer: Producer | None = None
        self._partitions: Mapping[str, int] = {}
        self._reason: str | None = "Kafka has not been reached yet"
        self._broken = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._supervisor = asyncio.create_task(self._supervise())

    async def publish(self, event: Event) -> None:
        if self._reason is not None:
            raise UnavailableError(self._reason)
        record = captured_record(event)
        size = record.size
        try:
            async with asyncio.timeout(self._seconds):
                if size <= LARGE_RECORD:
                    await self._store(record, size)
                    return
                sha256 = (await asyncio.to_thread(hashlib.sha256, event.body)).hexdigest()
                for part in claim_records(event, sha256):
                    await self._store(part, part.size)
        except TimeoutError as error:
            raise UnavailableError(
                f"Kafka has not confirmed the event within {self._seconds} s"
            ) from error

    def ready(self) -> str | None:
        if self._reason is None and self._stalled(self._seconds):
            return f"Kafka has confirmed nothing for {self._seconds} s"
        return self._reason

    async def stop(self) -> None:
        self._reason = "the ingress is shutting down"
        if self._supervisor is not None:
            await asyncio.gather(*(lane.finish(_FLUSH_SECONDS) for lane in self._lanes.values()))
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])

    async def _store(self, record: Record, size: int) -> None:
        if not self._budget.take(size, events=1):
            raise UnavailableError("too many events are on their way to Kafka")
        partition = partition_for(record.key, self._partitions[record.topic])
        address = (record.topic, partition)
        lane = self._lanes.get(address)
        if lane is None:
            topic = self._kafka.topic(record.topic)
            lane = self._lanes[address] = Lane(topic, partition, self._gone, self._failed)
        pending = Pending(record, size, asyncio.get_running_loop().create_future())
        lane.add(pending, self._producer)
        try:
            await pending.acked
        except asyncio.CancelledError:
            lane.withdraw(pending)
            raise

    def _gone(self, pending: Pending) -> None:
        self._budget.give_back(pending.size, events=1)

    def _failed(self, producer: Producer, error: Exception) -> None:
        if producer is self._producer:
            _log.warning("a batch failed", error=type(error).__name__)
            self._broken.set()

    def _stalled(self, seconds: float) -> bool:
        sent = [lane.sent_at for lane in self._lanes.values() if lane.sent_at is not None]
        return bool(sent) and time.monotonic() - min(sent) > seconds

    async def _supervise(self) -> None:
        """Connect, use the producer until it is broken, throw it away, and so on."""
        while True:
            try:
                connection = await connect(self._kafka)
            except UnavailableError as error:
                self._reason = str(error)
                _log.warning("events cannot be stored", reason=self._reason)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self._broken.clear()
            self._partitions = connection.partitions
            self._producer = connection.producer
            self._reason = None
            for lane in self._lanes.values():
                lane.send(connection.producer)
            try:
                await self._until_broken()
            finally:
                self._producer = None
                await asyncio.gather(*(lane.interrupt() for lane in self._lanes.values()))
                await abandon(connection.producer)
            _log.warning("the producer is replaced")

    async def _until_broken(self) -> None:
        while not self._broken.is_set() and not self._stalled(_STALLED_SECONDS):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._broken.wait(), 1.0)
