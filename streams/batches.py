"""Record batches through Faust: one Faust event per fetched batch of one partition.

Faust pays its machinery once an event. Here an event carries all records that one fetch brought of
one partition, so the price is paid once a batch; agents, tables, changelogs, rebalancing and
recovery stay Faust's (docs/design.md has the figures and what Faust's own patterns lose).

    app = faust.App("casewire-streams", Table=BatchTable, ...)
    use_batches(app)
    cases = app.topic("casewire.cases", schema=BatchSchema())
    latest = app.topic("casewire.case-state", schema=BatchSchema(), compacting=True)
    table = app.Table("case-state", key_type=bytes, value_type=bytes, changelog_topic=latest)

    @app.agent(cases, supervisor_strategy=mode.CrashingSupervisor)
    async def keep(stream):
        async for batch in stream.noack():
            changes = table.changes(batch)
            for record in batch.records:
                changes.put(record.key, newest(changes.get(record.key), record), headers)
            await changes.send()
            await batch.done(ahead=4)

What is promised (at least once):
- an offset is committed when its batch and all before it of that partition are acknowledged;
- a batch is acknowledged when the broker has acknowledged everything sent for it, in order;
- the local store is written after the changelog, so it is never ahead of it;
- a failed send ends the process with nothing acknowledged: a restart does the batch again;
- a record goes to its key's own partition (murmur2), or the process stops.

Leans on private names of Faust and aiokafka: their versions are pinned exactly, and
tests/streams/test_batches.py fails when an upgrade changes what is leant on.
"""

import asyncio
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import faust
from aiokafka.errors import ConsumerStoppedError, KafkaError
from aiokafka.partitioner import murmur2
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from schemas.envelope import Headers
from schemas.errors import WorkerError
from streams.fence import ChangelogReader, Ends, FencedError, Gap, overwritten, version_of
from streams.watchdog import INTERVAL_SECONDS, StuckError, Watchdog

#: Idle partitions hold up busy ones for as long as a fetch waits; Faust has 1,500 ms fixed.
FETCH_WAIT_MS = 50
#: How often a table asks where its changelog ends, to find what others wrote.
FENCE_SECONDS = 2.0


@lru_cache(maxsize=131_072)
def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key as Java's default partitioner chooses it."""
    partition: int = (murmur2(key) & 0x7FFFFFFF) % partitions
    return partition


class WrongPartitionError(WorkerError):
    """A key met a partition that is not its own: the topics' partitions do not agree."""


class Out(NamedTuple):
    """A record to send."""

    key: bytes
    value: bytes | None
    headers: Headers


Sent: TypeAlias = Callable[[Any], None]


class Batch:
    """Records of one partition in offset order; inside Faust it stands for the last of them."""

    # What Faust reads from a record when it makes a message of it.
    timestamp_type = key = headers = checksum = None
    serialized_key_size = serialized_value_size = 0

    def __init__(self, tp: TP, records: Sequence[Any]) -> None:
        self.tp = tp
        self.topic, self.partition = tp
        self.records = records
        self.offset = records[-1].offset
        self.timestamp = records[-1].timestamp
        self.chain = tp
        self._sends: list[tuple[asyncio.Future[Any], Sent | None]] = []

    @property
    def value(self) -> "Batch":
        return self

    def bind(self, app: Any, message: Any) -> None:
        self.app = app
        # Weak: the consumer holds the message until it is committed or revoked.
        self._message = weakref.ref(message)

    async def send(self, topic: str, records: Iterable[Out]) -> None:
        """Send records to their keys' partitions; the batch waits for their acknowledgement."""
        partitions = await self.app.producer.partitions(topic)
        by_partition: dict[int, list[Out]] = defaultdict(list)
        for record in records:
            by_partition[partition_of(record.key, partitions)].append(record)
        for partition, some in by_partition.items():
            for sent, _count in await self.app.producer.send_records(topic, partition, some):
                self.after(sent)

    def after(self, send: asyncio.Future[Any], then: Sent | None = None) -> None:
        """Have the batch wait for `send`; then(result) is called before it is acknowledged."""
        self._sends.append((send, then))

    async def sent(self) -> None:
        """Return when the broker has acknowledged what was sent for the batch so far."""
        sends = [send for send, _ in self._sends]
        if sends:
            done, _ = await asyncio.wait(sends)
            for send in done:
                send.result()

    async def done(self, ahead: int = 0) -> None:
        """Acknowledge the batch when all that was sent for it is.

        Returns when at most `ahead` batches of this worker wait for their sends.
        """
        await self.app.consumer.finish(self, ahead)

    async def settle(self) -> None:
        """Wait for what was sent; then the message may be acknowledged."""
        for send, then in self._sends:
            result = await send
            if then is not None:
                then(result)
        message = self._message()
        if message is not None:  # else it was revoked, and another worker reads it again
            message.ack(self.app.consumer)
            message.value = None  # the commit needs no more than the offset
        self.records = ()
        self._sends = []


class BatchSchema(faust.Schema):  # type: ignore[type-arg] # Faust's types lag behind
    """Schema of the topics that are read as batches of raw records."""

    def __init__(self, **kwargs: Any) -> None:
        raw = {"key_type": bytes, "value_type": bytes}
        serializers = {"key_serializer": "raw", "value_serializer": "raw"}
        super().__init__(**{**raw, **serializers, **kwargs})

    def compile(self, app: Any, **kwargs: Any) -> Any:
        async def decode(message: Any, *, propagate: bool = False) -> Any:
            message.value.bind(app, message)
            return app.create_event(None, message.value, None, message)

        return decode


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001
        return consumer

    async def still_polling(self) -> None:
        """Tell aiokafka that we are alive although we take no records now.

        Else it leaves the group after `broker_max_poll_interval` when a target is down for long.
        """
        with self._ensure_consumer()._fetcher._subscriptions.fetch_context():  # noqa: SLF001
            pass


class BatchConsumer(driver.Consumer):
    """Consumer that delivers batches and commits only what was acknowledged in order."""

    _thread: BatchConsumerThread  # type: ignore[mutable-override]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.pending: dict[TP, deque[Any]] = defaultdict(deque)  # delivered, not yet committed
        self.last: dict[TP, asyncio.Task[None]] = {}  # of a partition's unfinished batches
        self.unfinished: set[asyncio.Task[None]] = set()
        self.dropped: dict[TP, int] = {}
        self.batch_topics: set[str] = set()
        self.generation = 0
        self.watchdog = Watchdog()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def finish(self, batch: Batch, ahead: int) -> None:
        """See Batch.done."""
        task = asyncio.ensure_future(self._finish(batch, self.last.get(batch.chain)))
        self.last[batch.chain] = task
        self.unfinished.add(task)
        while len(self.unfinished) > ahead:
            done, self.unfinished = await asyncio.wait(
                self.unfinished, return_when=asyncio.FIRST_COMPLETED
            )
            for finished in done:
                finished.result()

    async def _finish(self, batch: Batch, previous: asyncio.Task[None] | None) -> None:
        try:
            if previous is not None:  # a store must not see an older change after a newer one
                await previous
            await batch.settle()
        except Exception as error:
            await self.app.crash(error)
            raise

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.dropped.clear()
        await self.commit()  # Faust forgets acknowledgements that are not committed here
        await super().on_partitions_revoked(revoked)
        self.pending.clear()
        self.last.clear()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.pending.clear()  # Kafka starts again at the committed offsets
        self.last.clear()
        self.dropped = {tp: offset for tp, offset in self.dropped.items() if tp in assigned}
        for table in self.app.tables.values():
            table.owns({tp.partition for tp in assigned if tp.topic == table.changelog_topic_name})
        self.batch_topics = {
            name
            for topic in self.app.topics
            if isinstance(topic.schema, BatchSchema)
            for name in topic.topics
        }
        await super().on_partitions_assigned(assigned, generation_id)

    @faust.Service.task
    async def _watch(self) -> None:
        async for _ in self.itertimer(INTERVAL_SECONDS, name="watchdog"):
            stuck = await self._stuck()
            if stuck:
                await self.app.crash(StuckError(f"it does not get on: {', '.join(stuck)}"))

    async def _stuck(self) -> Sequence[str]:
        """Return what has stood still for too long."""
        app = self.app
        transport: BatchTransport = self.transport  # type: ignore[assignment]
        if app.rebalancing:
            return self.watchdog.look({"a rebalance": 1}, {})
        if app.in_recovery:
            tables: Any = app.tables
            read = sum(tables.recovery.active_offsets.values())
            return self.watchdog.look({"recovery": read + 1}, {"recovery": read})
        if transport.excused():
            self.watchdog.rest()
            return ()
        sources = {tp for tp in self.assignment() if app.topics.acks_enabled_for(tp.topic)}
        sources = {tp for tp in sources if tp.topic not in app.tables.changelog_topics}
        try:
            ends = await asyncio.wait_for(self.highwaters(*sources), INTERVAL_SECONDS)
        except (KafkaError, TimeoutError):
            return ()  # the broker does not answer: nobody can say
        committed = {_name(tp): self._committed_offset[tp] or 0 for tp in sources}
        return self.watchdog.look({_name(tp): ends[tp] for tp in sources}, committed)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        # A copy: to aiokafka a set that is emptied meanwhile means "all partitions".
        self.generation = self.app.consumer_generation_id
        active = set(active_partitions or ())
        if self.app.rebalancing:
            # Faust empties the streams' queues when a rebalance ends: read changelogs only.
            active = {tp for tp in active if tp.topic in self.app.tables.changelog_topics}
        if not active:
            await self._thread.call_thread(self._thread.still_polling)
            await self.sleep(FETCH_WAIT_MS / 1000)
            return {}
        return await super()._getmany(active, timeout)

    async def _drain_messages(self, fetcher: Any) -> None:
        """Run the fetcher's loop, without Faust's lists of gaps and of single offsets."""
        try:
            while not (self.should_stop or fetcher.should_stop):
                fetched, active = await self._wait_next_records(timeout=1.0)
                for (topic, partition), records in (fetched or {}).items():
                    await self._deliver(TP(topic, partition), records, active)
                await self.sleep(0)
        except BaseException as error:
            expected = isinstance(error, (asyncio.CancelledError, *self.consumer_stopped_errors))
            if not (expected and self.app.should_stop):
                raise

    async def _deliver(self, tp: TP, records: Sequence[Any], active: set[TP] | None) -> None:
        """Hand records to the agents, as one message if the topic is batched.

        Records that a rebalance stops on their way are noted: if what is fetched next lies behind
        them, the position goes back to them first.
        """
        first = records[0].offset
        if self.dropped.get(tp, first) < first:
            if tp in self.assignment():
                self.log.info("%r: going back from %r to %r", tp, first, self.dropped[tp])
                await self.seek_wait({tp: self.dropped[tp]})
            return
        for record in [Batch(tp, records)] if tp.topic in self.batch_topics else records:
            if not self._wanted(tp, active) or not await self._hand_over(tp, record):
                self.dropped[tp] = min(first, self.dropped.get(tp, first))
                return
            first = record.offset + 1
        self.dropped.pop(tp, None)

    def _wanted(self, tp: TP, active: set[TP] | None) -> bool:
        same_generation = self.generation == self.app.consumer_generation_id
        return (
            self.flow_active
            and same_generation
            and (tp in (active or ()) or tp in self._buffered_partitions)
        )

    async def _hand_over(self, tp: TP, record: Any) -> bool:
        """Return whether the record reached its agent before the flow was stopped."""
        app = self.app
        app.monitor.track_tp_end_offset(tp, self.highwater(tp))
        message = self._to_message(tp, record)
        if app.topics.acks_enabled_for(tp.topic) and (tp.topic not in app.tables.changelog_topics):
            self.pending[tp].append(message)
        await self.wait_first(self.callback(message), self.suspend_flow.wait())
        return not self.suspend_flow.is_set()

    def _new_offset(self, tp: TP) -> int | None:
        """Return the end of the acknowledged prefix of what was delivered.

        Faust's own looks for gaps in single offsets: it jumps holes and stalls on others
        (measured.md §4).
        """
        pending = self.pending[tp]
        offset = None
        while pending and pending[0].acked:
            offset = pending.popleft().offset + 1
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return offset


def _name(tp: TP) -> str:
    return f"{tp.topic}/{tp.partition}"


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


class BatchTransport(driver.Transport):
    #: Whether the agents stand still for a good reason, such as a target that is down.
    excused: Callable[[], bool] = staticmethod(lambda: False)

    Consumer = BatchConsumer  # type: ignore[mutable-override]
    Producer = BatchProducer  # type: ignore[mutable-override]


def use_batches(app: faust.App, excused: Callable[[], bool] = lambda: False) -> None:
    """Set the app's transport; before topics and agents are declared.

    While the agents are `excused`, standing still does not end the process.
    """
    transport = BatchTransport(app.conf.broker_consumer, app)
    transport.excused = excused
    app.transport = transport
    app.producer_transport = BatchTransport(app.conf.broker_producer, app)


class Change(NamedTuple):
    """A changelog record in the shape in which stores take them (event and message in one)."""

    key: bytes
    value: bytes | None
    tp: TP
    offset: int

    @property
    def message(self) -> "Change":
        return self

    @property
    def partition(self) -> int:
        partition: int = self.tp.partition
        return partition


HeadersOf: TypeAlias = Callable[[bytes, bytes], Headers]
"""From a key and the value that is held for it to the headers with which it was published."""

VERSION_BYTES = 8


def packed(version: int, value: bytes) -> bytes:
    """Return a value as the store has it, behind its version."""
    return version.to_bytes(VERSION_BYTES, "big") + value


def version_in(stored: bytes) -> int:
    return int.from_bytes(stored[:VERSION_BYTES], "big")


class BatchTable(faust.Table):  # type: ignore[type-arg]
    """Table of raw keys and values, written per batch: changelog first, then the local store.

    Its changelog may be written by one agent only: the sends of two could swap. What a worker
    that is no longer the owner writes is written over (streams/fence.py) once `guard` is called.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Counts batches here; 1 has a special meaning in Faust's recovery.
        super().__init__(*args, **{**kwargs, "recovery_buffer_size": 2})
        self.unsent: dict[bytes, bytes | None] = {}  # not yet acknowledged by the broker
        self.ends = Ends()
        self.sending: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._writer = b""
        self._headers_of: HeadersOf | None = None

    def guard(self, writer: str, headers_of: HeadersOf) -> None:
        """Write over what others write; `writer` is what our states have as `casewire-writer`."""
        self._writer = writer.encode()
        self._headers_of = headers_of

    def changes(self, batch: Batch) -> "Changes":
        """Return what the batch is to change. It finishes after the batches before it that did.

        An agent that reads two topics gets batches of both; a store must take their changes in
        the order of the changelog. Of two tables, the first that is asked makes the order.
        """
        if batch.chain == batch.tp:
            batch.chain = TP(self.changelog_topic_name, batch.partition)
        return Changes(self, batch)

    def held(self, key: bytes) -> bytes | None:
        """Return what is held for a key, behind its version; sent or not."""
        if key in self.unsent:
            return self.unsent[key]
        stored: bytes | None = self.data.get(key)
        return stored

    def owns(self, partitions: set[int]) -> None:
        """Note which changelog partitions are ours now."""
        self.ends.lost(self.ends.known.keys() - partitions)

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Recovery: store the newest of changelog batches; a lower version is ignored."""
        newest: dict[bytes, Change] = {}
        for event in batch:
            tp = event.value.tp
            for record in event.value.records:
                key, version = record.key, version_of(record.headers)
                held = newest[key].value if key in newest else self.data.get(key)
                if held is None or version >= version_in(held):
                    value = None if record.value is None else packed(version, record.value)
                    newest[key] = Change(key, value, tp, record.offset)
            self.ends.recovered(tp.partition, event.value.offset + 1)
        self.store(newest.values())

    def store(self, changes: Iterable[Change]) -> None:
        super().apply_changelog_batch(changes)  # type: ignore[arg-type]

    async def on_start(self) -> None:
        await super().on_start()
        servers = ",".join(f"{url.host}:{url.port}" for url in self.app.conf.broker_consumer)
        self._reader = ChangelogReader(servers, self.changelog_topic_name)

    async def on_stop(self) -> None:
        await self._reader.stop()
        await super().on_stop()

    @faust.Service.task
    async def _watch_for_others(self) -> None:
        async for _ in self.itertimer(FENCE_SECONDS, name="fence"):
            if self._headers_of and not (self.app.rebalancing or self.app.in_recovery):
                await self._look_for_others(self._reader, self._headers_of)

    async def _look_for_others(self, reader: ChangelogReader, headers_of: HeadersOf) -> None:
        try:
            for partition, end in (await reader.ends(self.ends.known)).items():
                self.ends.seen(partition, end)
            for gap in self.ends.gaps[:]:
                await self._write_over(gap, await reader.read(gap), headers_of)
                self.ends.gaps.remove(gap)
        except ConsumerStoppedError:
            return  # the worker stops
        except KafkaError as error:
            self.log.warning("cannot look for writes of others now: %s", type(error).__name__)
        except FencedError as error:
            await self.app.crash(error)

    async def _write_over(self, gap: Gap, records: Sequence[Any], headers_of: HeadersOf) -> None:
        held = {key: self.held(key) for key in {record.key for record in records}}
        versions = {key: version_in(value) for key, value in held.items() if value is not None}
        lower, fenced = overwritten(records, versions, self._writer)
        if fenced:
            raise FencedError(
                f"another worker owns {self.changelog_topic_name}/{gap.partition}; "
                "this one was frozen, and starts anew"
            )
        if not lower:
            return
        self.log.warning("writing %s states over older ones of another worker", len(lower))
        producer: BatchProducer = self.app.producer  # type: ignore[assignment]
        async with self.sending[gap.partition]:
            now = {key: self.held(key) for key in lower}
            out = [
                Out(key, value[VERSION_BYTES:], headers_of(key, value[VERSION_BYTES:]))
                for key, value in now.items()
                if value is not None
            ]
            sends = await producer.send_records(self.changelog_topic_name, gap.partition, out)
        for sent, count in sends:
            self.ends.wrote(gap.partition, (await sent).offset, count)


@dataclass(slots=True)
class Changes:
    """What one batch changes in a table: reads see earlier writes at once."""

    table: BatchTable
    batch: Batch
    log: list[Out] = field(default_factory=list)
    stored: list[bytes | None] = field(default_factory=list)

    def get(self, key: bytes) -> bytes | None:
        held = self.table.held(key)
        return None if held is None else held[VERSION_BYTES:]

    def put(self, key: bytes, value: bytes | None, headers: Headers) -> None:
        """Set the value of a key (None deletes it). Its version is that of the headers."""
        stored = None if value is None else packed(version_of(headers), value)
        self.table.unsent[key] = stored
        self.log.append(Out(key, value, headers))
        self.stored.append(stored)

    async def send(self) -> None:
        """Send the changes to the changelog; the batch waits for their acknowledgement."""
        table, batch = self.table, self.batch
        producer: BatchProducer = table.app.producer  # type: ignore[assignment]
        tp = TP(table.changelog_topic_name, batch.partition)
        partitions = await producer.partitions(tp.topic)
        for record in self.log:
            if partition_of(record.key, partitions) != tp.partition:
                raise WrongPartitionError(
                    f"a key read from {batch.topic}/{tp.partition} does not belong to "
                    f"{tp.topic}/{tp.partition}: run casewire topics check"
                )
        async with table.sending[tp.partition]:
            sends = await producer.send_records(tp.topic, tp.partition, self.log)
        start = 0
        for sent, count in sends:
            batch.after(sent, partial(self._sent, tp, range(start, start + count)))
            start += count

    def _sent(self, tp: TP, which: range, result: Any) -> None:
        table = self.table
        table.ends.wrote(tp.partition, result.offset, len(which))
        table.store(
            Change(self.log[i].key, self.stored[i], tp, result.offset + i - which.start)
            for i in which
        )
        for i in which:
            key = self.log[i].key
            if table.unsent.get(key, table.unsent) is self.stored[i]:  # else it was changed again
                del table.unsent[key]
