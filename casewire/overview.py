"""What goes on now, from Kafka alone: what comes, what waits for whom, what failed.

So it is the same on one machine and on a cluster, and needs no process but the broker.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from casewire.alerts.writing import READ as READ_BY_ALERTS
from casewire.dead_letters import LETTERS, STATES
from casewire.failures import Cause, Failures, OpenAlert
from casewire.progress import STAGES, Offsets, committed_offsets
from casewire.reading import consuming
from casewire.topics import admin, partition_numbers, unanswered
from schemas.settings import KafkaSettings
from schemas.times import now
from schemas.topics import TOPICS
from streams.replays import REPLAYS

ALERTS: Final = "alert-state"
#: Of a partition at a time: of most of them only the first record is wanted.
_FETCH_BYTES: Final = 64 * 1024
_ANSWER_SECONDS: Final = 10
_POLL_MS: Final = 1000

Place: TypeAlias = tuple[str, int]
"""A topic (full name) and the number of a partition."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A topic (short name), how many offsets of it are kept, and how many come.

    Of a compacted topic there are fewer records than offsets.
    """

    name: str
    records: int
    per_second: float | None


@dataclass(frozen=True, slots=True)
class Reader:
    """A consumer group on a topic (short name). `role` is `streams`, `sink-NAME` or `alerts`.

    `lag`: records that are not committed. `lag_seconds`: how long ago the oldest of them was
    appended, 0 if there is none. `per_second`: records committed.
    """

    role: str
    topic: str
    lag: int
    lag_seconds: float
    per_second: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """One look. Rates are since the look before, and None at the first."""

    at: str
    flows: Sequence[Flow]
    readers: Sequence[Reader]
    causes: Sequence[Cause]
    alerts: Sequence[OpenAlert]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The offsets of one moment, in `seconds` of a clock that only goes on; `committed` by role."""

    seconds: float
    begins: Offsets
    ends: Offsets
    committed: Mapping[str, Offsets]

    def kept(self, places: Sequence[Place]) -> int:
        return self.appended(places) - sum(self.begins[place] for place in places)

    def appended(self, places: Sequence[Place]) -> int:
        return sum(self.ends[place] for place in places)

    def passed(self, role: str, places: Sequence[Place]) -> int:
        """Return how many offsets lie before those that a role has not committed."""
        return sum(self._first(role, place) for place in places)

    def waiting(self, role: str, places: Sequence[Place]) -> Mapping[Place, int]:
        """Return the partitions where something is not committed, and its first offset."""
        firsts = {place: self._first(role, place) for place in places}
        return {place: first for place, first in firsts.items() if first < self.ends[place]}

    def _first(self, role: str, place: Place) -> int:
        # What retention has deleted waits for nobody.
        return max(self.committed[role].get(place, 0), self.begins[place])


class Watch:
    """Looks again and again: a consumer and an admin client stay open. For one task at a time.

    `sinks` maps their names to the topics that they read (short names).
    """

    def __init__(self, kafka: KafkaSettings, sinks: Mapping[str, Sequence[str]]) -> None:
        self._kafka = kafka
        self._topics_of = {
            "streams": [topic for stage in STAGES for topic in stage],
            **{f"sink-{name}": [*topics, REPLAYS] for name, topics in sinks.items()},
            "alerts": [*READ_BY_ALERTS],
        }
        self._failures = Failures()
        self._read_to: dict[Place, int] = {}
        self._times: dict[tuple[Place, int], int] = {}
        self._before: Counted | None = None
        self._open = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect. Raises UnavailableError if there is no broker or a topic is missing."""
        kafka = self._kafka
        numbers = await partition_numbers(kafka, [kafka.topic(name) for name in TOPICS])
        everywhere = [TopicPartition(*each) for each in numbers]
        self._places = {
            name: [place for place in everywhere if place.topic == kafka.topic(name)]
            for name in TOPICS
        }
        async with contextlib.AsyncExitStack() as opening:
            self._admin = await opening.enter_async_context(admin(kafka))
            self._consumer: Any = await opening.enter_async_context(
                consuming(kafka, everywhere, _FETCH_BYTES)
            )
            self._consumer.pause(*everywhere)
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def look(self) -> Overview:
        """Look once. Raises UnavailableError if the broker does not answer; later it may again."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                counted = await self._count()
            await self._read_on(counted)
            await self._read_oldest(counted)
        except (KafkaError, OSError, TimeoutError) as error:
            raise await unanswered(self._kafka, error) from error
        before, self._before = self._before, counted
        at = now()
        return Overview(
            at=at,
            flows=[_flow(name, places, before, counted) for name, places in self._places.items()],
            readers=[
                self._reader(role, topic, before, counted)
                for role, topics in self._topics_of.items()
                for topic in topics
            ],
            causes=self._failures.causes(),
            alerts=self._failures.alerts(at),
        )

    def _reader(self, role: str, topic: str, before: Counted | None, counted: Counted) -> Reader:
        places = self._places[topic]
        waiting = counted.waiting(role, places)
        # One that was deleted meanwhile has no time.
        times = [self._times[each] for each in waiting.items() if each in self._times]
        return Reader(
            role=role,
            topic=topic,
            lag=sum(counted.ends[place] - first for place, first in waiting.items()),
            lag_seconds=max((time.time() - min(times) / 1000 if times else 0.0), 0.0),
            per_second=_rate(before, counted, lambda each: each.passed(role, places)),
        )

    async def _count(self) -> Counted:
        everywhere = [place for places in self._places.values() for place in places]
        return Counted(
            seconds=time.monotonic(),
            begins=await self._consumer.beginning_offsets(everywhere),
            ends=await self._consumer.end_offsets(everywhere),
            committed={
                role: await committed_offsets(self._admin, self._kafka.group(role))
                for role in self._topics_of
            },
        )

    async def _read_on(self, counted: Counted) -> None:
        """Read what has come since the last look of what failed."""
        takes = {
            LETTERS: self._failures.take_letter,
            STATES: self._failures.take_state,
            ALERTS: self._failures.take_alert,
        }
        for topic, take in takes.items():
            spans = {}
            for place in self._places[topic]:
                first = max(self._read_to.get(place, 0), counted.begins[place])
                if first < counted.ends[place]:
                    spans[place] = (first, counted.ends[place])
            await self._read(spans, take)
            self._read_to |= {place: end for place, (_, end) in spans.items()}
        self._failures.forget({each[1]: counted.begins[each] for each in self._places[LETTERS]})

    async def _read_oldest(self, counted: Counted) -> None:
        """Read when the oldest record that waits for a role was appended, where it is a new one."""
        wanted = {
            each
            for role, topics in self._topics_of.items()
            for topic in topics
            for each in counted.waiting(role, self._places[topic]).items()
        }
        self._times = {each: at for each, at in self._times.items() if each in wanted}
        missing = wanted - self._times.keys()
        while missing:
            # Roles that wait at different offsets of a partition have to wait for each other.
            firsts = dict(missing)
            missing -= set(firsts.items())

            def take(record: Any, firsts: Mapping[Place, int] = firsts) -> None:
                place = (record.topic, record.partition)
                self._times.setdefault((place, firsts[place]), record.timestamp)

            await self._read({place: (first, first + 1) for place, first in firsts.items()}, take)

    async def _read(
        self, spans: Mapping[Place, tuple[int, int]], take: Callable[[Any], None]
    ) -> None:
        """Have the records taken that lie between two offsets of partitions, and maybe later ones.

        Nothing is fetched of the others: all partitions but those that are read are paused.
        """
        left = {TopicPartition(*place): span for place, span in spans.items()}
        for place, (first, _) in left.items():
            self._consumer.seek(place, first)
            self._consumer.resume(place)
        try:
            deadline = time.monotonic() + _ANSWER_SECONDS
            while left:
                found = await self._consumer.getmany(*left, timeout_ms=_POLL_MS)
                for records in found.values():
                    for record in records:
                        take(record)
                done = [
                    p for p, (_, end) in left.items() if await self._consumer.position(p) >= end
                ]
                self._consumer.pause(*done)
                left = {place: span for place, span in left.items() if place not in done}
                if found or done:
                    deadline = time.monotonic() + _ANSWER_SECONDS
                elif time.monotonic() > deadline:
                    raise TimeoutError
        finally:
            self._consumer.pause(*left)


def _flow(name: str, places: Sequence[Place], before: Counted | None, counted: Counted) -> Flow:
    rate = _rate(before, counted, lambda each: each.appended(places))
    return Flow(name, counted.kept(places), rate)


def _rate(
    before: Counted | None, counted: Counted, count: Callable[[Counted], int]
) -> float | None:
    """Return how much a count grows in a second; offsets that were set back are no rate."""
    if before is None:
        return None
    return max(count(counted) - count(before), 0) / (counted.seconds - before.seconds)
