"""The agents: thin loops that read batches, have pure functions decide, and send what follows."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import time_ns
from typing import Any, TypeAlias

import faust
import structlog
from aiokafka.errors import KafkaError

from schemas.alert import Alert
from schemas.errors import DeliveryError, Rejection, TargetError
from schemas.settings import KafkaSettings
from schemas.times import now
from schemas.tracing import Tracer
from streams import metrics
from streams.ages import ages
from streams.alarms import TargetCause, as_record, of_target
from streams.batches.batch import Batch
from streams.batches.table import BatchTable, Changes
from streams.bodies import Bodies
from streams.dead_letters import dead_letter, rejection_of
from streams.decode import CASE_CHANGES, Decoded, claim_of, decode
from streams.delivery import Delivered, Delivery, Ready
from streams.flood import Failed, FloodError, Gate, alert, captured_kind
from streams.formats import require_readable
from streams.gathering import Gathering
from streams.last_events import LastEvents
from streams.ledger import Ledger
from streams.records import Out, Record, about, captured_id, header
from streams.replays import aimed_at, earliest_ms, is_replay, typed_again
from streams.state import STAGE, CaseJudge, Judge, Judged
from streams.trail import Trail, trail

Agent: TypeAlias = Callable[[faust.StreamT[bytes]], Coroutine[Any, Any, None]]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the agents of a worker share.

    `ahead`: batches that may wait for their sends. `dead_letter_limit`: see streams/flood.py.
    `tracer`: what records spans, if something does.
    """

    kafka: KafkaSettings
    ahead: int
    dead_letter_limit: float
    tracer: Tracer | None = None

    def trail(self, stage: str) -> Trail | None:
        """Return what tells of single events at a stage, None if nobody wants to know."""
        return trail(stage, self.kafka, self.tracer)

    async def decoded(self, record: Any) -> Decoded:
        """Decode a captured record, with its body from elsewhere if it is too large."""
        claim = claim_of(record)
        if claim is None:
            return decode(record)
        appended_ms = earliest_ms(record) if is_replay(record) else record.timestamp
        body = await Bodies(self.kafka).fetch(captured_id(record), claim, appended_ms)
        return decode(record, body)

    def gate(self, stage: str, kind_of: Callable[[Record], str] | None = None) -> Gate:
        """Return the watch over how a stage's events end. Their kind is their topic's name."""
        return Gate(stage, kind_of or self._topic_name, self.dead_letter_limit)

    def _topic_name(self, record: Record) -> str:
        return self.kafka.short(record.topic)

    async def stop_flood(
        self, batch: Batch, gate: Gate, records: Sequence[Record], failed: Failed
    ) -> None:
        """Raise FloodError, and say so on `alerts`, if so much fails that the fault is ours."""
        flood = gate.look(records, failed)
        if flood is None:
            return
        await self.report(batch, alert(flood, raised_at=now()))
        raise FloodError(flood.text)

    async def tell_of_target(
        self, sink: str, batch: Batch, cause: TargetCause, error: DeliveryError, *, safe: bool
    ) -> None:
        """Report that a sink's target is down, or refuses to work."""
        await self.report(batch, of_target(sink, cause, error, safe=safe, raised_at=now()))

    async def report(self, batch: Batch, alert: Alert) -> None:
        """Say on `alerts` what the alerts role is to tell people; return when it is safe there."""
        await batch.send(self.kafka.topic("alerts"), [as_record(alert)])
        await batch.sent()

    async def bury(self, batch: Batch, stage: str, failed: Failed) -> None:
        """Send a dead letter for each record that failed."""
        letters = []
        told = self.trail(stage)
        for record, rejection in failed:
            if told is not None:
                told.passed(record, "dead", failed=rejection.cause)
            metrics.DEAD_LETTERS.labels(stage, rejection.cause).inc()
            if rejection.cause == "unexpected":
                _log.error(
                    "a record became a dead letter",
                    stage=stage,
                    cause=rejection.cause,
                    reason=rejection.explanation,
                    **about(record),
                )
            letters.append(dead_letter(record, stage, rejection, failed_at=now()))
        if letters:
            await batch.send(self.kafka.topic("dead-letters"), letters)


def decoder(wiring: Wiring) -> Agent:
    """Return the agent that turns captured events into typed ones."""
    gate = wiring.gate("decode", captured_kind)
    last_events = LastEvents()
    metrics.begin_streams()

    async def decode_captured(stream: faust.StreamT[bytes]) -> None:
        async for batch in stream.noack():  # type: ignore[attr-defined]
            metrics.BATCH_RECORDS.labels("captured").observe(len(batch.records))
            last_events.came(await _decode(wiring, gate, batch, batch.records))
            await batch.done(wiring.ahead)

    return decode_captured


def replayer(wiring: Wiring) -> Agent:
    """Return the agent that has the stages of streams process again what is on `replays`.

    A typed event goes to its own topic once more: only the agent that reads it there may judge it.
    """
    gate = wiring.gate("decode", captured_kind)

    async def process_again(stream: faust.StreamT[bytes]) -> None:
        async for batch in stream.noack():  # type: ignore[attr-defined]
            await _decode(wiring, gate, batch, aimed_at("decode", batch.records))
            typed, failed = typed_again(aimed_at(STAGE, batch.records))
            for topic, out in typed.items():
                await batch.send(wiring.kafka.topic(topic), out)
            await wiring.bury(batch, STAGE, failed)
            await batch.done(wiring.ahead)

    return process_again


async def _decode(
    wiring: Wiring, gate: Gate, batch: Batch, records: Sequence[Any]
) -> Mapping[tuple[str, str], int]:
    """Return when the last event of each project space and (short) topic was captured.

    In milliseconds since 1970.
    """
    latest: dict[tuple[str, str], int] = {}
    typed: dict[str, list[Out]] = {}
    failed: list[tuple[Record, Rejection]] = []
    told = wiring.trail(gate.stage)
    for record in records:
        try:
            decoded = await (
                wiring.decoded(record) if told is None else _followed(wiring, record, told)
            )
        except KafkaError:
            raise  # not the record's fault: end, and begin again with this batch
        except Exception as error:  # noqa: BLE001 - whatever it is, what is behind it must not wait
            failed.append((record, rejection_of(error)))
        else:
            typed.setdefault(decoded.topic, []).append(decoded.out)
            domain = header(record.headers, "casewire-domain") or ""
            latest[domain, decoded.topic] = record.timestamp
            if decoded.changes:
                typed.setdefault(CASE_CHANGES.topic, []).extend(decoded.changes)
    await wiring.stop_flood(batch, gate, records, failed)
    for topic, out in typed.items():
        metrics.DECODED.labels(topic).inc(len(out))
        await batch.send(wiring.kafka.topic(topic), out)
    await wiring.bury(batch, "decode", failed)
    return latest


async def _followed(wiring: Wiring, record: Record, told: Trail) -> Decoded:
    told.begin()
    decoded = await wiring.decoded(record)
    return decoded.followed(told.passed(record, decoded.topic))


def keeper(wiring: Wiring, table: BatchTable, judge: Judge, topic: str) -> Agent:
    """Return the agent that keeps the latest states of the events on `topic` in `table`."""
    gate = wiring.gate(STAGE)

    async def keep_latest(stream: faust.StreamT[bytes]) -> None:
        async for batch in stream.noack():  # type: ignore[attr-defined]
            changes = table.changes(batch)
            verdicts = _Verdicts(batch, topic, wiring.trail(STAGE))
            for record in batch.records:
                judged = verdicts.of(record, partial(judge, record, changes.get(record.key or b"")))
                if judged is not None:
                    _put(changes, judged.publish)
            await wiring.stop_flood(batch, gate, batch.records, verdicts.failed)
            await changes.send()
            await verdicts.tell(wiring)
            await batch.done(wiring.ahead)

    return keep_latest


@dataclass(frozen=True, slots=True)
class Cases:
    """The tables of case states and of folds, and the judges of snapshots and of case blocks."""

    states: BatchTable
    folds: BatchTable
    snapshot: CaseJudge
    change: CaseJudge


def case_keeper(wiring: Wiring, cases: Cases) -> Agent:
    """Return the agent that keeps the latest states of cases, from snapshots and from forms.

    One agent for both topics: the sends of two could swap. What follows from a block goes to the
    fold first, and to the state when the fold is safe: a state of forms is made of its fold, and
    work done again after a crash must not find less in it than the state already says.
    """
    changes_topic = wiring.kafka.topic(CASE_CHANGES.topic)
    gate = wiring.gate(STAGE)

    async def keep_cases(stream: faust.StreamT[bytes]) -> None:
        async for batch in stream.noack():  # type: ignore[attr-defined]
            from_forms = batch.topic == changes_topic
            judge = cases.change if from_forms else cases.snapshot
            states, folds = cases.states.changes(batch), cases.folds.changes(batch)
            topic = CASE_CHANGES.topic if from_forms else "cases"
            verdicts = _Verdicts(batch, topic, wiring.trail(STAGE))
            for record in batch.records:
                key = record.key or b""
                judged = verdicts.of(
                    record, partial(judge, record, states.get(key), folds.get(key))
                )
                if judged is not None:
                    _put(states, judged.publish)
                    _put(folds, judged.fold)
            await wiring.stop_flood(batch, gate, batch.records, verdicts.failed)
            if folds.log:
                await folds.send()
                await batch.sent()
            await states.send()
            await verdicts.tell(wiring)
            await batch.done(wiring.ahead)

    return keep_cases


def _put(changes: Changes, out: Out | None) -> None:
    if out is not None:
        changes.put(out.key, out.value, out.headers)


class _Verdicts:
    """How the events of a batch ended, for the ledger and the metrics. `topic` is a short name."""

    def __init__(self, batch: Batch, topic: str, told: Trail | None) -> None:
        self._batch = batch
        self._topic = topic
        self._ledger = Ledger(STAGE, written="applied")
        self._ends: Counter[tuple[str, bool, bool]] = Counter()
        self._trail = told
        self.failed: list[tuple[Record, Rejection]] = []

    def of(self, record: Record, judge: Callable[[], Judged]) -> Judged | None:
        """Return the verdict of a record, None if it is one for the dead letters."""
        require_readable(record)
        if self._trail is not None:
            self._trail.begin()
        try:
            judged = judge()
        except Exception as error:  # noqa: BLE001 - as above
            self.failed.append((record, rejection_of(error)))
            self._ledger.add(record, "dead")
            return None
        if self._trail is not None:
            judged = judged.followed(self._trail.passed(record, judged.outcome))
        self._ledger.add(record, judged.outcome)
        self._ends[judged.outcome, judged.doubtful, judged.untimed] += 1
        return judged

    async def tell(self, wiring: Wiring) -> None:
        """Send the dead letters and the ledger's records, and count."""
        self._count()
        await wiring.bury(self._batch, STAGE, self.failed)
        await self._batch.send(wiring.kafka.topic("deliveries"), self._ledger.records())

    def _count(self) -> None:
        metrics.BATCH_RECORDS.labels(self._topic).observe(len(self._batch.records))
        for (outcome, doubtful, untimed), number in self._ends.items():
            metrics.JUDGED.labels(self._topic, outcome).inc(number)
            if doubtful:
                metrics.DOUBTFUL.labels(self._topic).inc(number)
            if untimed:
                metrics.UNTIMED.labels(self._topic).inc(number)


def deliverer(
    wiring: Wiring, delivery: Delivery, gathering: Gathering, *, errors_are_safe: bool
) -> Agent:
    """Return the agent that writes to a sink; `errors_are_safe`: alerts may quote the target."""
    gate = wiring.gate(delivery.stage)
    metrics.begin_sink(delivery.name)

    tell = partial(wiring.tell_of_target, delivery.name, safe=errors_are_safe)

    async def write_to_sink(stream: faust.StreamT[bytes]) -> None:
        batches = aiter(stream.noack())  # type: ignore[attr-defined]
        async for gathered in gathering.groups(_for_sink(delivery, batches)):
            group = [each for each in gathered if not each.batch.revoked]
            if not group:
                continue
            first = group[0].batch
            down = partial(tell, first, "target_unavailable")
            told = wiring.trail(delivery.stage)
            try:
                delivered = await delivery.settle([e for each in group for e in each.ready], down)
            except TargetError as error:
                await tell(first, "target_refuses", error)
                raise error from None  # Faust logs the cause too, and that may quote data
            start = 0
            for each in group:
                part = delivered.part(start, len(each.records))
                if each.records:
                    await _told(wiring, gate, each, part)
                    _follow(told, each.records, part.ends)
                place = (wiring.kafka.short(each.batch.topic), str(each.batch.partition))
                _count((delivery.name, *place), each.batch, part.ends)
                _count_ages(delivery.name, each.records, part.ends)
                start += len(each.records)
            for each in group:
                await each.batch.done(wiring.ahead)

    return write_to_sink


@dataclass(frozen=True, slots=True)
class _ForSink:
    """The records of a batch that are for a sink, and what it is to write of them."""

    batch: Batch
    records: Sequence[Any]
    ready: Sequence[Ready]


async def _for_sink(delivery: Delivery, batches: AsyncIterator[Batch]) -> AsyncIterator[_ForSink]:
    """Get batches ready; of `replays` only what is aimed at the sink."""
    async for batch in batches:
        replayed = is_replay(batch.records[0])
        records = aimed_at(delivery.stage, batch.records) if replayed else batch.records
        yield _ForSink(batch, records, await delivery.ready(records))


def _count_ages(sink: str, records: Sequence[Record], ends: Sequence[str]) -> None:
    """Count how old what was written now is."""
    written = (record for record, end in zip(records, ends, strict=True) if end == "written")
    histogram = metrics.AGE.labels(sink)
    for age in ages(written, time_ns() // 1000):
        histogram.observe(age)


def _count(place: tuple[str, str, str], batch: Batch, ends: Sequence[str]) -> None:
    """Count the offsets of a batch, those that were compacted away among them, and their ends.

    `place`: the sink, the topic's short name, the partition.
    """
    offsets = batch.records[-1].offset + 1 - batch.records[0].offset
    metrics.PASSED.labels(*place).inc(offsets)
    counts = Counter(ends)
    counts["for others"] = len(batch.records) - len(ends)
    counts["compacted away"] = offsets - len(batch.records)
    for outcome, count in counts.items():
        metrics.DELIVERED.labels(*place, outcome).inc(count)


def _follow(told: Trail | None, records: Sequence[Record], ends: Sequence[str]) -> None:
    if told is not None:
        for record, end in zip(records, ends, strict=True):
            if end != "dead":  # those are told of where they are buried
                told.passed(record, end)


async def _told(wiring: Wiring, gate: Gate, read: _ForSink, delivered: Delivered) -> None:
    """Send what became of a batch's records. What the sink did not want tells of no flood."""
    batch, records = read.batch, read.records
    ledger = Ledger(gate.stage, written="written")
    for record, end in zip(records, delivered.ends, strict=True):
        ledger.add(record, end)
    failed = [(records[place], why) for place, why in delivered.rejected.items()]
    wanted = [records[place] for place in delivered.wanted()]
    await wiring.stop_flood(batch, gate, wanted, failed)
    await wiring.bury(batch, gate.stage, failed)
    await batch.send(wiring.kafka.topic("deliveries"), ledger.records())
