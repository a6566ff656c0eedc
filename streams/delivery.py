"""From a batch of state records to a sink: the newest of each key, tried until it is settled."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from schemas.case import CaseState
from schemas.errors import RejectedRowsError, Rejection, TransientError
from schemas.times import from_microseconds
from sinks.base import Sink
from streams import metrics
from streams.dead_letters import dead_letter
from streams.fence import version_of
from streams.records import Out, Record, captured_id
from streams.tombstones import Gone

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0

logger = logging.getLogger(__name__)


def backoff(jitter: Callable[[], float] = random.random) -> Iterator[float]:
    """Yield the seconds to wait before each new try: doubling, bounded, half of it random."""
    wait = FIRST_WAIT_SECONDS
    while True:
        yield wait * (0.5 + jitter() / 2)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


@dataclass(frozen=True, slots=True)
class Parsed:
    """The newest state of each key in a batch, each with its record, and what is no state."""

    states: Sequence[tuple[Record, CaseState]]
    superseded: int
    malformed: Sequence[Record]


def newest_of_each(records: Sequence[Record]) -> Parsed:
    """Parse a batch of state records. A null says of a case that it is gone, as its state did.

    Who was away for long may never have read that state: it is compacted away.
    """
    newest: dict[bytes, tuple[Record, CaseState]] = {}
    malformed = []
    superseded = 0
    for record in records:
        state = _forgotten(record) if record.value is None else _state(record.value)
        if state is None:
            malformed.append(record)
            continue
        key = record.key or b""
        held = newest.get(key)
        superseded += held is not None
        if held is None or state.version >= held[1].version:
            newest[key] = (record, state)
    return Parsed(list(newest.values()), superseded, malformed)


def _forgotten(record: Record) -> CaseState | None:
    version = version_of(record.headers)
    domain, _, case_id = (record.key or b"").decode(errors="replace").partition("/")
    if not version or not case_id:
        return None
    return Gone(version, captured_id(record), None, "").state(domain, case_id)


def _state(value: bytes) -> CaseState | None:
    try:
        state = CaseState.from_json(value)
    except (TypeError, ValueError):
        return None
    fields: tuple[object, object] = (state.version, state.properties)
    match fields:
        case (int(), dict()):
            return state
        case _:
            return None


class Delivery:
    """Delivers batches of records to one sink.

    `sleep` waits between tries; `waiting` says that the target is down. TargetError and what nobody
    foresaw pass through: the process ends, nothing is acknowledged, and the next start begins with
    the same batch.
    """

    def __init__(
        self, name: str, sink: Sink, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.name = name
        self._sink = sink
        self._sleep = sleep
        self._open = False
        self.waiting = False

    async def deliver(self, records: Sequence[Record]) -> Sequence[Out]:
        """Write a batch; return the dead letters of what the target will never take."""
        parsed = newest_of_each(records)
        rejected = await self._write(parsed.states)
        rejected.extend(
            (record, Rejection("invalid_field", "this is not a case state"))
            for record in parsed.malformed
        )
        self._count("superseded", parsed.superseded)
        self._count("dead", len(rejected))
        now = from_microseconds(time.time_ns() // 1000)
        stage = f"sink:{self.name}"
        for _record, rejection in rejected:
            metrics.DEAD_LETTERS.labels(stage, rejection.cause).inc()
        return [dead_letter(record, stage, why, failed_at=now) for record, why in rejected]

    async def close(self) -> None:
        await self._sink.close()

    async def _write(
        self, states: Sequence[tuple[Record, CaseState]]
    ) -> list[tuple[Record, Rejection]]:
        """Write states until each is written, stale, or refused; return the refused."""
        rejected: list[tuple[Record, Rejection]] = []
        waits = backoff()
        while states:
            try:
                await self._write_once([state for _, state in states])
            except RejectedRowsError as error:
                rejected.extend((states[i][0], why) for i, why in error.rows.items())
                states = [pair for i, pair in enumerate(states) if i not in error.rows]
            except TransientError as error:
                await self._wait(next(waits), error)
            else:
                break
        self._set_waiting(waiting=False)
        return rejected

    async def _write_once(self, states: Sequence[CaseState]) -> None:
        if not self._open:
            await self._sink.open()
            self._open = True
        outcomes = await self._sink.write(states)
        for outcome in outcomes:
            self._count(outcome, 1)

    async def _wait(self, seconds: float, error: TransientError) -> None:
        self._set_waiting(waiting=True)
        metrics.RETRIES.labels(self.name).inc()
        logger.warning("sink %s: %s; trying again in %.1f s", self.name, error, seconds)
        await self._sleep(seconds)

    def _set_waiting(self, *, waiting: bool) -> None:
        self.waiting = waiting
        metrics.WRITING.labels(self.name).set(waiting)

    def _count(self, outcome: str, amount: int) -> None:
        metrics.DELIVERED.labels(self.name, outcome).inc(amount)
