"""The consumer: hands over what was fetched as batches, and commits what was acknowledged."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import faust
import structlog
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import CrashingSupervisor

from kafka_clients.closing import close_consumer
from schemas.step import Step
from streams.batches.batch import Batch, BatchSchema, Work
from streams.batches.lag import Delivered, Lag
from streams.batches.raw import read_raw
from streams.watchdog import INTERVAL_SECONDS, StuckError, Watchdog

_log = structlog.get_logger(__name__)

#: Idle partitions hold up busy ones for as long as a fetch waits; Faust has 1,500 ms fixed.
FETCH_WAIT_MS = 50
#: What a fetch waits for that long: few records a batch cost twice as much CPU each as many.
FETCH_MIN_BYTES = 256 * 1024
#: How long to wait for records, if nothing comes; and while an agent's full queue holds some back.
IDLE_SECONDS = 1.0
HELD_BACK_SECONDS = 0.01
#: A worker in which one of these takes longer is not live any more; it has a minute to end itself.
STUCK_SECONDS = 90.0


def patience(held_back: Collection[TP]) -> float:
    """Return for how many seconds to wait for records of the partitions that are not held back.

    The wait does not end when a queue has room again, although records of its partition are there:
    the whole worker would stand still for the rest of it.
    """
    return HELD_BACK_SECONDS if held_back else IDLE_SECONDS


def require_crashing(agents: Iterable[Any]) -> None:
    """Raise TypeError for an agent that would go on behind the batch that it failed on."""
    for agent in agents:
        if agent.supervisor_strategy is not CrashingSupervisor:
            raise TypeError(f"agent {agent.name} needs supervisor_strategy=CrashingSupervisor")


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001
        consumer._fetch_min_bytes = FETCH_MIN_BYTES  # noqa: SLF001
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        app: Any = self.app
        transport: Any = self.transport
        raw = transport.raw
        read_raw(self._ensure_consumer(), lambda topic: raw or topic in app.tables.changelog_topics)

    async def on_thread_stop(self) -> None:
        await self.method_queue.stop()
        if self._consumer is not None:
            await close_consumer(self._consumer)

    async def go_back(self, dropped: Mapping[TP, int]) -> None:
        """Fetch again from these offsets on, where the position is behind them.

        Nothing is awaited here, so that no seek of Faust's to an earlier place comes in between.
        """
        consumer = self._ensure_consumer()
        for tp in consumer.assignment() & dropped.keys():
            place = consumer._subscription.subscription.assignment.state_value(tp)  # noqa: SLF001
            if place.has_valid_position and place.position > dropped[tp]:
                _log.info(
                    "a partition is fetched again",
                    topic=tp.topic,
                    partition=tp.partition,
                    offset=dropped[tp],
                )
                consumer.seek(tp, dropped[tp])

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
        self.pending: dict[TP, deque[Delivered]] = defaultdict(deque)
        self.last: dict[TP, asyncio.Task[None]] = {}  # of a partition's unfinished batches
        self.unfinished: set[asyncio.Task[None]] = set()
        self.dropped: dict[TP, int] = {}
        self.batch_topics: set[str] = set()
        self.generation = 0
        self.watchdog = Watchdog()
        self.fetch = Step("Kafka's client has not answered", STUCK_SECONDS)
        self.looking = Step("the watchdog has not looked", STUCK_SECONDS)
        super().__init__(*args, **kwargs)
        self.lag = Lag(self)

    async def on_start(self) -> None:
        require_crashing(self.app.agents.values())
        await self.add_runtime_dependency(self.lag)
        await super().on_start()

    def sources(self) -> Collection[TP]:
        """Return the partitions that this worker reads for its agents now."""
        app: Any = self.app
        return {
            tp
            for tp in self.assignment()
            if app.topics.acks_enabled_for(tp.topic) and tp.topic not in app.tables.changelog_topics
        }

    def committed(self, tp: TP) -> int:
        """Return the first offset of a partition that is not committed, 0 if none ever was."""
        return self._committed_offset.get(tp) or 0

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def finish(self, batch: Work, ahead: int) -> None:
        """See Work.done."""
        task = asyncio.ensure_future(self._finish(batch, self.last.get(batch.chain)))
        self.last[batch.chain] = task
        self.unfinished.add(task)
        while len(self.unfinished) > ahead:
            done, _ = await asyncio.wait(self.unfinished, return_when=asyncio.FIRST_COMPLETED)
            self.unfinished -= done  # other agents may have added to it meanwhile
            for finished in done:
                finished.result()

    async def _finish(self, batch: Work, previous: asyncio.Task[None] | None) -> None:
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
        self.batch_topics = {
            name
            for topic in self.app.topics
            if isinstance(topic.schema, BatchSchema)
            for name in topic.topics
        }
        await super().on_partitions_assigned(assigned, generation_id)

    @faust.Service.task
    async def _watch(self) -> None:
        self.looking.begin()
        async for _ in self.itertimer(INTERVAL_SECONDS, name="watchdog"):
            self.looking.begin()
            stuck = await self._stuck()
            if stuck:
                await self.app.crash(StuckError(f"it does not get on: {', '.join(stuck)}"))

    async def _stuck(self) -> Sequence[str]:
        """Return what has stood still for too long."""
        app = self.app
        transport: Any = self.transport
        if self.fetch.seconds > INTERVAL_SECONDS:  # its thread hangs: it never waits for so long
            return self.watchdog.look({"a fetch": 1}, {})
        if app.rebalancing:
            return self.watchdog.look({"a rebalance": 1}, {})
        if app.in_recovery:
            tables: Any = app.tables
            read = sum(tables.recovery.active_offsets.values())
            return self.watchdog.look({"recovery": read + 1}, {"recovery": read})
        if transport.excused():
            self.watchdog.rest()
            return ()
        sources = self.sources()
        try:
            ends = await asyncio.wait_for(self.highwaters(*sources), INTERVAL_SECONDS)
        except (KafkaError, TimeoutError):
            return ()  # the broker does not answer: nobody can say
        committed = {_name(tp): self.committed(tp) for tp in sources}
        return self.watchdog.look({_name(tp): ends[tp] for tp in sources}, committed)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        self.fetch.begin()
        try:
            return await self._fetched(active_partitions, timeout)
        finally:
            self.fetch.end()

    async def _fetched(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        # A copy: to aiokafka a set that is emptied meanwhile means "all partitions".
        self.generation = self.app.consumer_generation_id
        if self.dropped:
            await self._thread.call_thread(self._thread.go_back, dict(self.dropped))
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
                wait = patience(self._buffered_partitions)
                fetched, active = await self._wait_next_records(timeout=wait)
                for (topic, partition), records in (fetched or {}).items():
                    await self._deliver(TP(topic, partition), records, active)
                await self.sleep(0)
        except BaseException as error:
            expected = isinstance(error, (asyncio.CancelledError, *self.consumer_stopped_errors))
            if not (expected and self.app.should_stop):
                raise

    async def _deliver(self, tp: TP, records: Sequence[Any], active: set[TP] | None) -> None:
        """Hand records to the agents, as one message if the topic is batched.

        Records that a rebalance stops on their way are noted, and fetched again; what lies behind
        them waits for that.
        """
        first = records[0].offset
        if self.dropped.get(tp, first) < first:
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
            self.pending[tp].append(Delivered(message, time.monotonic()))
        await self.wait_first(self.callback(message), self.suspend_flow.wait())
        return not self.suspend_flow.is_set()

    def _new_offset(self, tp: TP) -> int | None:
        """Return the end of the acknowledged prefix of what was delivered.

        Faust's own looks for gaps in single offsets: it jumps holes and stalls on others
        (measured.md §4).
        """
        pending = self.pending[tp]
        offset = None
        while pending and pending[0].message.acked:
            offset = pending.popleft().message.offset + 1
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return offset


def _name(tp: TP) -> str:
    return f"{tp.topic}/{tp.partition}"
