"""A batch of one partition's records, from its fetch to its acknowledgement."""

import asyncio
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import faust
from faust.types import TP

from schemas.partitioner import partition_of
from streams.records import Out

Sent: TypeAlias = Callable[[Any], None]


class Work:
    """What is done to one partition: it is finished in its turn, when all that was sent for it is.

    Its turn is after the work that was begun before it on the same `chain`.
    """

    def __init__(self, tp: TP) -> None:
        self.tp = tp
        self.topic, self.partition = tp
        self.chain = tp
        self._sends: list[tuple[asyncio.Future[Any], Sent | None]] = []

    def bind(self, app: Any) -> None:
        self.app = app

    async def send(self, topic: str, records: Iterable[Out]) -> None:
        """Send records to their keys' partitions; the work waits for their acknowledgement."""
        partitions = await self.app.producer.partitions(topic)
        by_partition: dict[int, list[Out]] = defaultdict(list)
        for record in records:
            by_partition[partition_of(record.key, partitions)].append(record)
        for partition, some in by_partition.items():
            for sent, _count in await self.app.producer.send_records(topic, partition, some):
                self.after(sent)

    def after(self, send: asyncio.Future[Any], then: Sent | None = None) -> None:
        """Have the work wait for `send`; then(result) is called before it is finished."""
        self._sends.append((send, then))

    async def sent(self) -> None:
        """Return when the broker has acknowledged what was sent for the work so far."""
        sends = [send for send, _ in self._sends]
        if sends:
            done, _ = await asyncio.wait(sends)
            for send in done:
                send.result()

    async def done(self, ahead: int = 0) -> None:
        """Finish the work when all that was sent for it is acknowledged.

        Returns when at most `ahead` of this worker's wait for their sends.
        """
        await self.app.consumer.finish(self, ahead)

    async def settle(self) -> None:
        """Wait for what was sent."""
        for send, then in self._sends:
            result = await send
            if then is not None:
                then(result)
        self._sends = []


class Batch(Work):
    """Records of one partition in offset order; inside Faust it stands for the last of them.

    But for its time, which is that of the first: what is behind is as old as that.
    """

    # What Faust reads from a record when it makes a message of it.
    timestamp_type = key = headers = checksum = None
    serialized_key_size = serialized_value_size = 0

    def __init__(self, tp: TP, records: Sequence[Any]) -> None:
        super().__init__(tp)
        self.records = records
        self.offset = records[-1].offset
        self.timestamp = records[0].timestamp

    @property
    def value(self) -> "Batch":
        return self

    def carried_by(self, message: Any) -> None:
        # Weak: the consumer holds the message until it is committed or revoked.
        self._message = weakref.ref(message)

    @property
    def revoked(self) -> bool:
        """Whether it is not ours any more: its records are read again, by whoever owns them now."""
        return self._message() is None

    async def settle(self) -> None:
        """Wait for what was sent; then the message may be acknowledged."""
        await super().settle()
        message = self._message()
        if message is not None:  # else it was revoked, and another worker reads it again
            message.ack(self.app.consumer)
            message.value = None  # the commit needs no more than the offset
        self.records = ()


class BatchSchema(faust.Schema):  # type: ignore[type-arg] # Faust's types lag behind
    """Schema of the topics that are read as batches of raw records."""

    def __init__(self, **kwargs: Any) -> None:
        raw = {"key_type": bytes, "value_type": bytes}
        serializers = {"key_serializer": "raw", "value_serializer": "raw"}
        super().__init__(**{**raw, **serializers, **kwargs})

    def compile(self, app: Any, **kwargs: Any) -> Any:
        async def decode(message: Any, *, propagate: bool = False) -> Any:
            message.value.bind(app)
            message.value.carried_by(message)
            return app.create_event(None, message.value, None, message)

        return decode
