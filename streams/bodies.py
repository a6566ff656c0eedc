"""Bodies too large for one record: put together again from their pieces (contract §4)."""

import hashlib
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from kafka_clients.login import client_options
from schemas.claim import PIECE, Claim
from schemas.errors import InvalidEventError
from schemas.partitioner import partition_of
from schemas.settings import KafkaSettings
from streams.records import header

#: Pieces are durable before the record that claims them is sent; the ingress gives up after less.
EARLIEST_PIECE_MS: Final = 10 * 60 * 1000
POLL_MS: Final = 200
FETCH_BYTES: Final = 4 * 1024 * 1024


class Bodies:
    """Reads bodies from `casewire.bodies`. Large forms are rare: a consumer is made for each."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka

    async def fetch(self, captured_id: str, claim: Claim, timestamp_ms: int) -> bytes:
        """Return the body that a captured event claims; `timestamp_ms` is its record's, or less.

        Raises InvalidEventError if its pieces are not all there, or not what was captured.
        """
        key = captured_id.encode()
        consumer = AIOKafkaConsumer(
            **client_options(self._kafka),
            enable_auto_commit=False,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        try:
            await consumer.start()
            topic = self._kafka.topic("bodies")
            place = TopicPartition(topic, partition_of(key, self._kafka.partitions))
            consumer.assign([place])
            pieces = await _pieces(consumer, place, key, claim, timestamp_ms)
        finally:
            await consumer.stop()
        body = b"".join(pieces[index] for index in sorted(pieces))
        if len(body) != claim.size or hashlib.sha256(body).hexdigest() != claim.sha256:
            raise InvalidEventError(
                "too_large", "the body was stored in pieces, and they are not all there any more"
            )
        return body


async def _pieces(
    consumer: Any, place: Any, key: bytes, claim: Claim, timestamp_ms: int
) -> dict[int, bytes]:
    """Return the pieces by index; fewer than claimed if the partition ends before."""
    end = (await consumer.end_offsets([place]))[place]
    found = await consumer.offsets_for_times({place: max(0, timestamp_ms - EARLIEST_PIECE_MS)})
    start = found[place].offset if found[place] is not None else end
    consumer.seek(place, start)
    pieces: dict[int, bytes] = {}
    while start < end and len(pieces) < claim.pieces:
        for record in (await consumer.getmany(place, timeout_ms=POLL_MS)).get(place, ()):
            start = record.offset + 1
            if record.key == key and record.value is not None:
                pieces[int(header(record.headers, PIECE) or 0)] = record.value
    return pieces
