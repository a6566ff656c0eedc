"""From records to a sink: chosen, the newest of each key, tried until each is settled."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Protocol, TypeAlias

import msgspec
import structlog

from schemas.errors import RejectedRowsError, Rejection, TransientError, named
from schemas.form import FormState
from sinks.base import EVENTS, Message, Outcome, Preparing, Result, Sink, Source, parsed
from sinks.match import Choice
from streams import metrics
from streams.alarms import error_code
from streams.fence import version_of
from streams.formats import require_readable
from streams.records import Record, captured_id
from streams.replays import is_replay, topic_of
from streams.tombstones import Gone

FIRST_WAIT_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 30.0
#: A target that has been down for so long is a trouble to tell people of, and then again.
TELL_SECONDS: Final = 300.0
#: Records that are made ready between two turns of the event loop: about a millisecond's work.
_AT_A_TIME: Final = 40
_WANTED: Final = frozenset({"written", "stale", "dead"})
_EVERYTHING: Final = Choice({}, {})

Prepare: TypeAlias = Callable[[Sequence[Message]], Sequence[Any]]
"""Makes of messages what a sink takes; a Rejection of one that it never will."""

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


class Ready(msgspec.Struct, frozen=True):
    """A record made ready for its write.

    `item` is what the sink takes, or why it never will. `end`: how the record has ended without any
    write. Of records with one `key` only the one of the greatest `version` is written; those of a
    sink of events have no version.
    """

    item: Any
    end: str = ""
    key: tuple[Source, str] | None = None
    version: int = 0


@dataclass(slots=True)
class Delivered:
    """How each of some records ended, in their order, and what the target refused, by place."""

    ends: list[str]
    rejected: dict[int, Rejection] = field(default_factory=dict)

    def end(self, place: int, result: Outcome | Rejection) -> None:
        self.ends[place] = "dead" if isinstance(result, Rejection) else result
        if isinstance(result, Rejection):
            self.rejected[place] = result

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
        self._prepare: Prepare = sink.prepare if isinstance(sink, Preparing) else _as_they_are
        self._write_items: Callable[[Sequence[Any]], Awaitable[Sequence[Result]]] = (
            sink.write_prepared if isinstance(sink, Preparing) else sink.write
        )
        self._choice = choice
        self._pace = pace
        self._sleep = sleep
        self._open = False
        self._waited = 0.0

    async def deliver(self, records: Sequence[SinkRecord], tell: Tell = _tell_nobody) -> Delivered:
        """Write what the sink wants of the records; return when all of them are settled."""
        return await self.settle(await self.ready(records), tell)

    async def ready(self, records: Sequence[SinkRecord]) -> Sequence[Ready]:
        """Do what need not wait for the write before.

        It is done a few records at a time: the write that goes on meanwhile has turns in between.
        """
        found: list[Ready] = []
        for start in range(0, len(records), _AT_A_TIME):
            await asyncio.sleep(0)
            messages = [message_of(record) for record in records[start : start + _AT_A_TIME]]
            found += made_ready(messages, self._choice, self._prepare)
        return found

    async def settle(self, ready: Sequence[Ready], tell: Tell = _tell_nobody) -> Delivered:
        """Write what is ready; return when all of it is settled."""
        self.busy = True
        try:
            return await self._settled(ready, tell)
        finally:
            self.busy = False

    async def _settled(self, ready: Sequence[Ready], tell: Tell) -> Delivered:
        delivered, chosen = chosen_of(ready)
        waits = backoff()
        while chosen:
            places = chosen[: 1 if self.waiting else self._pace.rows_at_once]
            began = time.monotonic()
            results, error = await self._write([ready[place].item for place in places])
            metrics.WRITE_SECONDS.labels(self.name).observe(time.monotonic() - began)
            metrics.WRITE_RECORDS.labels(self.name).observe(len(places))
            for place, result in zip(places, results, strict=True):
                if isinstance(result, TransientError):
                    error = error or result
                else:
                    delivered.end(place, result)
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

    async def _write(self, items: Sequence[Any]) -> tuple[Sequence[Result], TransientError | None]:
        """Return how each item ended, and why the target could take none of them."""
        rejected: dict[int, Rejection] = {}
        left = list(range(len(items)))
        while True:
            try:
                if not self._open:
                    await self._sink.open()
                    self._open = True
                written = await self._write_items([items[place] for place in left])
            except RejectedRowsError as error:
                rejected |= {left[i]: why for i, why in error.rows.items()}
                left = [place for place in left if place not in rejected]
                if left:
                    continue
                written = []
            except TransientError as error:
                return [rejected.get(place, error) for place in range(len(items))], error
            ended = dict(zip(left, written, strict=True)) | rejected
            return [ended[place] for place in range(len(items))], None

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


def made_ready(
    messages: Sequence[Message | Rejection], choice: Choice, prepare: Prepare
) -> Sequence[Ready]:
    """Return messages made ready, in order: `prepare` gets those that are wanted."""
    found: dict[int, Ready] = {}
    wanted: dict[int, Message] = {}
    for place, message in enumerate(messages):
        if isinstance(message, Rejection):
            found[place] = Ready(message, end="dead")
        elif rule := choice.rule_against(message):
            found[place] = Ready(None, end=f"excluded by {rule}")
        else:
            wanted[place] = message
    items = prepare([*wanted.values()])
    for (place, message), item in zip(wanted.items(), items, strict=True):
        found[place] = Ready(item, "", (message.source, message.key), message.version)
    return [found[place] for place in range(len(messages))]


def _as_they_are(messages: Sequence[Message]) -> Sequence[Message]:
    return messages


def chosen_of(ready: Sequence[Ready]) -> tuple[Delivered, list[int]]:
    """Return the places of what is to be written, and the others' ends."""
    delivered = Delivered([each.end for each in ready])
    newest: dict[tuple[Source, str] | None, int] = {}
    for place, each in enumerate(ready):
        if each.version and not each.end:
            held = newest.get(each.key)
            newer = held is None or each.version >= ready[held].version
            if held is not None:
                delivered.ends[held if newer else place] = "superseded"
            if newer:
                newest[each.key] = place
    for place, each in enumerate(ready):
        if isinstance(each.item, Rejection) and delivered.ends[place] in ("", "dead"):
            delivered.end(place, each.item)
    return delivered, [place for place, end in enumerate(delivered.ends) if not end]


def message_of(record: SinkRecord) -> Message | Rejection:
    """Return a record as a sink takes it, or why it is nothing for one.

    Raises NewerFormError.
    """
    require_readable(record)
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
