"""The producer of record batches."""

import asyncio
from collections.abc import Iterable
from typing import Any

from faust.transport.drivers import aiokafka as driver

from streams.records import Out


class BatchProducer(driver.Producer):
    """Idempotent producer that can send record batches."""

    def _settings_extra(self) -> dict[str, Any]:
        return {**super()._settings_extra(), "acks": "all", "enable_idempotence": True}

    async def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has."""
        return len(await self._ensure_producer().partitions_for(topic))

    async def send_records(
        self, topic: str, partition: int, records: Iterable[Out]
    ) -> list[tuple[asyncio.Future[Any], int]]:
        """Send records as few record batches; return (future, number of records) of each."""
        producer = self._ensure_producer()
        batches: list[Any] = []
        for key, value, headers in records:
            record = {"timestamp": None, "key": key, "value": value, "headers": headers}
            if not batches or batches[-1].append(**record) is None:  # None: it is full
                batches.append(producer.create_batch())
                batches[-1].append(**record)  # an empty one takes a record of any size
        sends = []
        for batch in batches:
            batch.close()  # a closed batch does not linger
            sent = await producer.send_batch(batch, topic, partition=partition)
            sends.append((sent, batch.record_count()))
        return sends
