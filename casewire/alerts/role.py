"""`casewire alerts run`: reads what went wrong, keeps what is open, tells people.

One process has all partitions and does the work; another one that runs beside it takes over. What
was decided is on `casewire.alert-state` before its message goes out, and what was read is committed
after that: a crash can repeat a message, and loses none.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import CommitFailedError, IllegalStateError

from casewire.alerts import metrics
from casewire.alerts.channels import Channel
from casewire.alerts.decided import Decided
from casewire.alerts.messages import message
from casewire.alerts.state import Rules, State
from casewire.alerts.watch import Watch
from casewire.alerts.writing import READ, producing, send
from casewire.reading import read_topic
from kafka_clients.closing import close_consumer
from kafka_clients.login import CLIENT_ID, client_options
from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from schemas.step import Step
from schemas.times import now
from streams.alarms import as_record
from streams.delivery import backoff

_POLL_MS: Final = 500
ROUND_SECONDS: Final = 300.0
#: How soon the one that waits hears that it is its turn.
_HEARTBEAT_MS: Final = 1000

_log = structlog.get_logger(__name__)


class OneForAll(RoundRobinPartitionAssignor):  # type: ignore[misc, no-any-unimported]
    """Gives all partitions to one member of the group; the others wait to take over."""

    name = "casewire-one"

    @classmethod
    def assign(cls, cluster: Any, members: Any) -> Any:
        first = min(members)
        topics = {topic for member in members.values() for topic in member.subscription}
        everything = [
            (topic, sorted(cluster.partitions_for_topic(topic) or ())) for topic in topics
        ]
        return {
            member: ConsumerProtocolMemberAssignment(
                cls.version, sorted(everything) if member == first else [], b""
            )
            for member in members
        }


@dataclass(slots=True)
class Turn(ConsumerRebalanceListener):  # type: ignore[misc, no-any-unimported]
    """Whether it is this process's turn, and whether it has just become so.

    `joined` is set once it is in its group, at work or waiting.
    """

    joined: asyncio.Event = field(default_factory=asyncio.Event)
    mine: bool = False
    fresh: bool = False

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        self.mine = False

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        self.mine = self.fresh = bool(assigned)
        self.joined.set()


@dataclass(slots=True)
class Outbox:
    """Brings messages to the channels; one that fails is left alone for longer and longer."""

    channels: Mapping[str, Channel]
    interval_minutes: int
    _rests: dict[str, tuple[float, Any]] = field(default_factory=dict)

    async def send(self, state: State) -> None:
        """Send what the channels have not taken yet, each one message."""
        await asyncio.gather(*(self._send(state, name) for name in self.channels))

    async def _send(self, state: State, name: str) -> None:
        waiting = state.desk.unsent(name)
        until, waits = self._rests.get(name, (0.0, backoff()))
        if not waiting or time.monotonic() < until:
            return
        try:
            await asyncio.to_thread(self.channels[name], message(waiting, self.interval_minutes))
        except UnavailableError as error:
            metrics.FAILED.labels(name).inc()
            seconds = 10 * next(waits)
            _log.warning(
                "a message is sent again later", channel=name, reason=str(error), seconds=seconds
            )
            self._rests[name] = (time.monotonic() + seconds, waits)
        else:
            self._rests.pop(name, None)
            metrics.SENT.labels(name).inc()
            state.desk.sent(name, waiting)


@dataclass(slots=True)
class AlertsRole:
    """The loop."""

    kafka: KafkaSettings
    rules: Rules
    outbox: Outbox
    watch: Watch
    decided: Decided
    turn: Turn = field(default_factory=Turn)
    #: Two channels that take a minute each, and a broker that is looked for in vain, take less.
    round: Step = field(default_factory=lambda: Step("it has not come round", ROUND_SECONDS))

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. Raises KafkaError if the broker does not come back."""
        async with _consumer(self.kafka, self.turn) as consumer, producing(self.kafka) as producer:
            state = State(self.rules)
            while not stop.is_set():
                self.round.begin()
                found = await consumer.getmany(timeout_ms=_POLL_MS)
                metrics.ACTIVE.set(self.turn.mine)
                if not self.turn.mine:
                    continue
                if self.turn.fresh:
                    self.turn.fresh = False
                    state = await self._taken_over()
                for records in found.values():
                    for record in records:
                        state.take(record, now())
                behind = await self.watch.look(state.desk, now())
                await self.decided.look(state, now())
                state.look(now(), behind=behind)
                await self._save(state, producer)
                await _commit(consumer, found)
                await self.outbox.send(state)
                await self._save(state, producer)

    async def _taken_over(self) -> State:
        saved = [record async for record in read_topic(self.kafka, "alert-state")]
        _log.info("this process tells of alerts now")
        state = State(self.rules, saved)
        state.retire(now())
        return state

    async def _save(self, state: State, producer: Any) -> None:
        news = state.desk.news()
        for alert in news:
            metrics.TOLD.labels(alert.status).inc()
        metrics.OPEN.set(sum(each.open for each in state.desk.troubles.values()))
        await send(producer, self.kafka.topic("alerts"), [as_record(alert) for alert in news])
        await send(producer, self.kafka.topic("alert-state"), state.changes())


async def _commit(consumer: Any, found: Mapping[Any, Sequence[Any]]) -> None:
    try:
        if found:
            await consumer.commit(
                {place: records[-1].offset + 1 for place, records in found.items()}
            )
    except (CommitFailedError, IllegalStateError):
        _log.info("another process has taken over; it reads the same again")


@asynccontextmanager
async def _consumer(kafka: KafkaSettings, turn: Turn) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(
        **client_options(kafka),
        client_id=CLIENT_ID,
        group_id=kafka.group("alerts"),
        partition_assignment_strategy=(OneForAll,),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        heartbeat_interval_ms=_HEARTBEAT_MS,
    )
    consumer.subscribe([kafka.topic(name) for name in READ], listener=turn)
    await consumer.start()
    try:
        yield consumer
    finally:
        await close_consumer(consumer)
