"""The agents: thin loops that read batches, have pure functions decide, and send what follows."""

import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

import faust
from aiokafka.errors import KafkaError

from schemas.settings import KafkaSettings
from schemas.times import from_microseconds
from streams import metrics
from streams.batches import Batch, BatchTable, Out
from streams.bodies import Bodies
from streams.dead_letters import dead_letter, rejection_of
from streams.decode import Decoded, claim_of, decode
from streams.delivery import Delivery
from streams.ledger import Ledger
from streams.records import Record
from streams.state import STAGE, Judge

Agent: TypeAlias = Callable[[faust.StreamT[bytes]], Coroutine[Any, Any, None]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the agents of a worker share. `ahead`: batches that may wait for their sends."""

    kafka: KafkaSettings
    ahead: int

    async def decoded(self, record: Any) -> Decoded:
        """Decode a captured record, with its body from elsewhere if it is too large."""
        claim = claim_of(record)
        if claim is None:
            return decode(record)
        body = await Bodies(self.kafka).fetch(record, claim, record.timestamp)
        return decode(record, body)

    async def bury(self, batch: Batch, stage: str, failed: list[tuple[Record, Exception]]) -> None:
        """Send a dead letter for each record that failed."""
        if not failed:
            return
        now = from_microseconds(time.time_ns() // 1000)
        letters = []
        for record, error in failed:
            rejection = rejection_of(error)
            metrics.DEAD_LETTERS.labels(stage, rejection.cause).inc()
            if rejection.cause == "unexpected":
                logger.error(
                    "a record of %s/%s at %s became a dead letter: %s",
                    record.topic, record.partition, record.offset, rejection.explanation,
                )  # fmt: skip
            letters.append(dead_letter(record, stage, rejection, failed_at=now))
        await batch.send(self.kafka.topic("dead-letters"), letters)


def decoder(wiring: Wiring) -> Agent:
    """Return the agent that turns captured events into typed ones."""

    async def decode_captured(stream: faust.StreamT[bytes]) -> None:
        async for batch in stream.noack():  # type: ignore[attr-defined]
            await _decode(wiring, batch)
            await batch.done(wiring.ahead)

    return decode_captured


async def _decode(wiring: Wiring, batch: Batch) -> None:
    typed: dict[str, list[Out]] = {}
    failed: list[tuple[Record, Exception]] = []
    for record in batch.records:
        try:
            decoded = await wiring.decoded(record)
        except KafkaError:
            raise  # not the record's fault: end, and begin again with this batch
        except Exception as error:  # noqa: BLE001 - whatever it is, what is behind it must not wait
            failed.append((record, error))
        else:
            typed.setdefault(decoded.topic, []).append(decoded.out)
    metrics.BATCH_RECORDS.labels("captured").observe(len(batch.records))
    for topic, out in typed.items():
        metrics.DECODED.labels(topic).inc(len(out))
        await batch.send(wiring.kafka.topic(topic), out)
    await wiring.bury(batch, "decode", failed)


def keeper(wiring: Wiring, table: BatchTable, judge: Judge, topic: str) -> Agent:
    """Return the agent that keeps the latest states of the events on `topic` in `table`."""

    async def keep_latest(stream: faust.StreamT[bytes]) -> None:
        async for batch in stream.noack():  # type: ignore[attr-defined]
            await _keep(wiring, batch, table, judge, topic)
            await batch.done(wiring.ahead)

    return keep_latest


async def _keep(wiring: Wiring, batch: Batch, table: BatchTable, judge: Judge, topic: str) -> None:
    changes = table.changes(batch)
    ledger = Ledger(STAGE, written="applied")
    failed: list[tuple[Record, Exception]] = []
    for record in batch.records:
        key = record.key or b""
        try:
            judged = judge(record, changes.get(key))
        except Exception as error:  # noqa: BLE001 - as above
            failed.append((record, error))
            ledger.add(record, "dead")
            continue
        if judged.publish is not None:
            changes.put(key, judged.publish.value, judged.publish.headers)
        ledger.add(record, judged.outcome)
        metrics.JUDGED.labels(topic, judged.outcome).inc()
        if judged.doubtful:
            metrics.DOUBTFUL.labels(topic).inc()
        if judged.untimed:
            metrics.UNTIMED.labels(topic).inc()
    metrics.BATCH_RECORDS.labels(topic).observe(len(batch.records))
    await changes.send()
    await wiring.bury(batch, STAGE, failed)
    await batch.send(wiring.kafka.topic("deliveries"), ledger.records())


def deliverer(wiring: Wiring, delivery: Delivery) -> Agent:
    """Return the agent that writes states to a sink."""

    async def write_states(stream: faust.StreamT[bytes]) -> None:
        async for batch in stream.noack():  # type: ignore[attr-defined]
            letters = await delivery.deliver(batch.records)
            await batch.send(wiring.kafka.topic("dead-letters"), letters)
            await batch.done()

    return write_states
