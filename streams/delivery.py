"""From records to a sink: chosen, the newest of each key, tried until each is settled."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Protocol, TypeAlias

import structlog

from schemas.errors import RejectedRowsError, Rejection, TransientError, named
from schemas.form import FormState
from sinks.base import EVENTS, Message, Outcome, Result, Sink, Source, parsed
from sinks.match import Choice
from streams import metrics
from streams.alarms import error_code
from streams.fence import version_of
from streams.records import Record, captured_id
from streams.replays import is_replay, topic_of
from streams.tombstones import Gone

FIRST_WAIT_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 30.0
#: A target that has been down for so long is a trouble to tell people of, and then again.
TELL_SECONDS: Final = 300.0
_WANTED: Final = frozenset({"written", "stale", "dead"})
_EVERYTHING: Final = Choice({}, {})

Tell: TypeAlias = Callable[[TransientError], Awaitable[None]]
"""Is told of a target that has been down for a multiple of TELL_SECONDS."""

_log = structlog.get_logger(__name__)


async def _tell_nobody(error: TransientError) -> None:
    return


def backoff(jitter: Callable[[], float] = random.random) -> Iterator[float]:
    """Yield the seconds to wait before each new try: doubling, bounded, half of it random."""
    wait = FIRST_WAIT_SECONDS
    while True:
        yield wait * (0.5 + jitter() / 2)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


class SinkRecord(Record, Protocol):
    """A record with the time at which the broker appended it (milliseconds since 1970)."""

    @property
    def timestamp(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """`rows`: the most of one write. `per_second`: the most that is written, 0 for no limit."""

    rows: int
    per_second: int = 0

    @property
    def rows_at_once(self) -> int:
        """The most of one write, if it is not to be more than a second's."""
        return min(self.rows, self.per_second or self.rows)


@dataclass(slots=True)
class Delivered:
    """How each of some records ended, in their order, and what the target refused, by place."""

    ends: list[str]
    rejected: dict[int, Rejection] = field(default_factory=dict)

    def part(self, start: int, count: int) -> "Delivered":
        """Return the same of `count` of the records from `start` on."""
        places = range(start, start + count)
        rejected = {place - start: why for place, why in self.rejected.items() if place in places}
        return Delivered(self.ends[start : start + count], rejected)

    def wanted(self) -> Sequence[int]:
        """Return the places of what was written, or would have been."""
        return [place for place, end in enumerate(self.ends) if end in _WANTED]


class Delivery:
    """Delivers records to one sink.

    `sleep` waits between tries; `busy` says that something is being delivered, `waiting` that the
    target is down. While it is, one message is tried, not a batch of them. TargetError and what
    nobody foresaw pass through: the process ends, nothing is acknowledged, and the next start
    begins with the same records.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        choice: Choice = _EVERYTHING,
        pace: Pace = Pace(2000),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self.stage = f"sink:{name}"
        self.waiting = False
        self.busy = False
        self._sink = sink
        self._choice = choice
        self._pace = pace
        self._sleep = sleep
        self._open = False
        self._waited = 0.0

    async def deliver(self, records: Sequence[SinkRecord], tell: Tell = _tell_nobody) -> Delivered:
        """Write what the sink wants of the records; return when all of them are settled."""
        self.busy = True
        try:
            return await self._settled(records, tell)
        finally:
            self.busy = False

    async def _settled(self, records: Sequence[SinkRecord], tell: Tell) -> Delivered:
        delivered = Delivered([""] * len(records))
        messages: dict[int, Message] = {}
        for place, record in enumerate(records):
            message = message_of(record)
            if isinstance(message, Rejection):
                self._end(delivered, place, message)
            else:
                messages[place] = message
        chosen = self._chosen(messages, delivered)
        waits = backoff()
        while chosen:
            places = chosen[: 1 if self.waiting else self._pace.rows_at_once]
            began = time.monotonic()
            results, error = await self._write([messages[place] for place in places])
            metrics.WRITE_SECONDS.labels(self.name).observe(time.monotonic() - began)
            metrics.WRITE_RECORDS.labels(self.name).observe(len(places))
            for place, result in zip(places, results, strict=True):
                if isinstance(result, TransientError):
                    error = error or result
                else:
                    self._end(delivered, place, result)
            chosen = [place for place in chosen if not delivered.ends[place]]
            if error is not None:
                if await self._wait(next(waits), error):
                    await tell(error)
            else:
                self._set_waiting(waiting=False)
                waits = backoff()
                await self._keep_pace(len(places), began)
        return delivered

    async def close(self) -> None:
        await self._sink.close()

    def _chosen(self, messages: Mapping[int, Message], delivered: Delivered) -> list[int]:
        """Return the places of the messages to write, with the others' ends noted."""
        left_out: dict[int, str] = {}
        newest: dict[tuple[Source, str], int] = {}
        for place, message in messages.items():
            rule = self._choice.rule_against(message)
            if rule:
                left_out[place] = f"excluded by {rule}"
            elif message.version:
                held = newest.get((message.source, message.key))
                newer = held is None or message.version >= messages[held].version
                if held is not None:
                    left_out[held if newer else place] = "superseded"
                if newer:
                    newest[message.source, message.key] = place
        for place, end in left_out.items():
            delivered.ends[place] = end
        return [place for place in messages if place not in left_out]

    async def _write(
        self, messages: Sequence[Message]
    ) -> tuple[Sequence[Result], TransientError | None]:
        """Return how each message ended, and why the target could take none of them."""
        rejected: dict[int, Rejection] = {}
        left = list(range(len(messages)))
        while True:
            try:
                if not self._open:
                    await self._sink.open()
                    self._open = True
                written = await self._sink.write([messages[place] for place in left])
            except RejectedRowsError as error:
                rejected |= {left[i]: why for i, why in error.rows.items()}
                left = [place for place in left if place not in rejected]
                if left:
                    continue
                written = []
            except TransientError as error:
                return [rejected.get(place, error) for place in range(len(messages))], error
            ended = dict(zip(left, written, strict=True)) | rejected
            return [ended[place] for place in range(len(messages))], None

    def _end(self, delivered: Delivered, place: int, result: Outcome | Rejection) -> None:
        end = "dead" if isinstance(result, Rejection) else result
        if isinstance(result, Rejection):
            delivered.rejected[place] = result
        delivered.ends[place] = end

    async def _wait(self, seconds: float, error: TransientError) -> bool:
        """Wait before the next try; return whether people should know of it by now."""
        self._set_waiting(waiting=True)
        metrics.RETRIES.labels(self.name).inc()
        seconds = max(seconds, error.retry_after)
        _log.warning(
            "the target takes nothing now; it is tried again",
            sink=self.name,
            seconds=round(seconds, 1),
            code=error_code(error),
            **named(error),
        )
        await self._sleep(seconds)
        told = self._waited // TELL_SECONDS
        self._waited += seconds
        return self._waited // TELL_SECONDS > told

    async def _keep_pace(self, written: int, began: float) -> None:
        if self._pace.per_second:
            due = began + written / self._pace.per_second
            await self._sleep(max(due - time.monotonic(), 0))

    def _set_waiting(self, *, waiting: bool) -> None:
        self.waiting = waiting
        if not waiting:
            self._waited = 0.0
        metrics.WRITING.labels(self.name).set(waiting)


def message_of(record: SinkRecord) -> Message | Rejection:
    """Return a record as a sink takes it, or why it is nothing for one."""
    source = _source(record)
    if source is None:
        return Rejection("invalid_field", "this is nothing that a sink takes")
    try:
        version = version_of(record.headers)
        if not version and source in ("case-state", "form-state"):
            raise ValueError  # noqa: TRY301
        key = (record.key or b"").decode()
        state = _forgotten(record, source, key) if record.value is None else record.value
        value, event = parsed(state, source)
    except (TypeError, ValueError):
        return Rejection("invalid_field", f"this is nothing that belongs on {source}")
    return Message(
        source=source,
        replayed=is_replay(record),
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        key=key,
        headers=record.headers,
        value=value,
        event=event,
        version=version,
        forgotten=record.value is None,
    )


def _source(record: Record) -> Source | None:
    return _source_of(topic_of(record) if is_replay(record) else record.topic)


@cache
def _source_of(topic: str) -> Source | None:
    return next((source for source in EVENTS if topic.endswith(source)), None)


def _forgotten(record: Record, source: Source, key: str) -> bytes:
    """Return the state that a null stands for: of a case that is gone, as its last state said.

    Who was away for long may never have read that one: it is compacted away. A form that is gone
    is one that was archived. Raises ValueError if the null is none of ours.
    """
    domain, _, subject = key.partition("/")
    if not subject:
        raise ValueError
    version, of = version_of(record.headers), captured_id(record)
    if source == "case-state":
        return Gone(version, of, None, "").state(domain, subject).to_json()
    return FormState(
        id=subject,
        domain=domain,
        form={},
        metadata=None,
        archived=True,
        state_version=version,
        captured_id=of,
    ).to_json()
