"""Answers questions about a case's past, on the worker that holds its partition."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from schemas.case import CaseState
from schemas.errors import QueryError
from schemas.partitioner import partition_of
from schemas.times import from_microseconds, now, to_microseconds
from streams.formats import NewerFormError, require_readable
from streams.past.index import Entry, entries_of
from streams.past.indexes import Indexes, captured_time
from streams.past.reads import Partition, RecordReader, Span
from streams.past.story import Event, Judges, Kind, Step, first_certain, in_order, steps
from streams.records import Record, time_of_id

#: How long a question waits for an index that is nearly up to date.
_PATIENCE_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.02
_MADE_ANEW: Final = "the index of past moments is being made from the topics; ask again soon"
_KINDS: Final[Sequence[Kind]] = ("snapshot", "block")  # in the order of indexes.TOPICS


@dataclass(frozen=True, slots=True)
class Page:
    """Steps of a case's story, oldest first. `complete`: its beginning is still kept.

    `next` is the event id after which the next page begins, None on the last one.
    """

    steps: Sequence[Step]
    complete: bool
    next: str | None


@dataclass(frozen=True, slots=True)
class _Known:
    """What can be known of a case: index entries that are kept, and since when (None: always)."""

    entries: Sequence[Entry]
    kept_since: str | None


class Past:
    """`published` gives the state that is published for a key, None if there is none."""

    def __init__(
        self,
        partitions: int,
        judges: Judges,
        indexes: Indexes,
        reader: RecordReader,
        published: Callable[[bytes], bytes | None],
    ) -> None:
        self._partitions = partitions
        self._judges = judges
        self._indexes = indexes
        self._reader = reader
        self._published = published
        self._kept_since: dict[tuple[Partition, int], str] = {}

    async def at(self, key: bytes, moment: str) -> bytes:
        """Return the state at a moment (canonical). Raises QueryError."""
        known = await self._known(key)
        held = self._published(key)
        changed = max([entry.time for entry in known.entries] + [_captured(held)])
        if to_microseconds(moment) >= changed:
            if held is None:
                raise QueryError(404, "this case is not known")
            return held
        if known.kept_since is None:
            return await self._of_whole(key, known, moment)
        events = await self._events(key, known.entries)
        certain = first_certain(events, known.kept_since)
        oldest = from_microseconds(changed) if certain is None else events[certain].captured_at
        if certain is None or moment < oldest:
            raise QueryError(
                410,
                f"what was held of this case then is not kept any more; ask for {oldest} or later",
                oldest=oldest,
            )
        return await asyncio.to_thread(self._last, events, moment, certain)

    async def history(self, key: bytes, after: str | None, limit: int) -> Page:
        """Return a page of the case's story. Raises QueryError."""
        known = await self._known(key)
        if not known.entries and self._published(key) is None:
            raise QueryError(404, "this case is not known")
        events = await self._events(key, known.entries)
        first = 0
        if after is not None:
            ids = [event.id for event in events]
            if after not in ids:
                raise QueryError(400, "after: there is no such event in this case's story")
            first = ids.index(after) + 1
        certain = first_certain(events, known.kept_since)
        told = await asyncio.to_thread(list, steps(events[: first + limit], self._judges, certain))
        page = told[first:]
        more = first + limit < len(events)
        return Page(page, known.kept_since is None, page[-1].event.id if more else None)

    async def _of_whole(self, key: bytes, known: _Known, moment: str) -> bytes:
        then = [entry for entry in known.entries if entry.time <= to_microseconds(moment)]
        if not then:
            first = from_microseconds(min(entry.time for entry in known.entries))
            raise QueryError(404, f"this case was not known then; its first event came {first}")
        events = await self._events(key, then)
        return await asyncio.to_thread(self._last, events, moment, -1)

    def _last(self, events: Sequence[Event], moment: str, certain: int) -> bytes:
        state = None
        for step in steps((e for e in events if e.captured_at <= moment), self._judges, certain):
            state = step.state
        if state is None:
            raise QueryError(404, "nothing that came of this case until then made a state")
        return state

    async def _known(self, key: bytes) -> _Known:
        partition = partition_of(key, self._partitions)
        spans = await self._reader.spans(self._indexes.layout.places(partition))
        await self._await_index({place: span.end for place, span in spans.items()})
        starts = [span.start for span in spans.values()]
        try:
            entries = await asyncio.to_thread(entries_of, self._indexes.layout.file(partition), key)
        except sqlite3.Error as error:
            self._indexes.damaged(partition)
            raise QueryError(503, _MADE_ANEW) from error
        kept = [entry for entry in entries if entry.offset >= starts[entry.topic]]
        since = [await self._since(place, span) for place, span in spans.items() if span.start]
        return _Known(kept, max(since, default=None))

    async def _await_index(self, ends: Mapping[Partition, int]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._indexes.behind(ends) != 0:
            if time.monotonic() > deadline:
                raise QueryError(503, _MADE_ANEW)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _since(self, place: Partition, span: Span) -> str:
        """Return when the oldest record that a partition still has was written."""
        if span.start == span.end:
            return now()
        if (place, span.start) not in self._kept_since:
            records = await self._reader.read([(place, span.start)])
            if not records:
                raise QueryError(503, "records are being deleted just now; ask again")
            since = from_microseconds(records[0].timestamp * 1000)
            self._kept_since = {
                known: time for known, time in self._kept_since.items() if known[0] != place
            } | {(place, span.start): since}
        return self._kept_since[place, span.start]

    async def _events(self, key: bytes, entries: Sequence[Entry]) -> Sequence[Event]:
        """Read the events of entries. Raises QueryError if they are not where the index says."""
        partition = partition_of(key, self._partitions)
        places = self._indexes.layout.places(partition)
        wanted = {(places[entry.topic], entry.offset): entry for entry in entries}
        records = await self._reader.read(wanted)
        if len(records) != len(wanted):
            raise QueryError(503, "records are being deleted just now; ask again")
        for record in records:
            _require_readable(record)
            place = Partition(record.topic, record.partition)
            if captured_time(record) != wanted[place, record.offset].time:
                self._indexes.damaged(partition)
                raise QueryError(503, _MADE_ANEW)
        kinds = dict(zip((place.topic for place in places), _KINDS, strict=True))
        return in_order(Event.of(each, kinds[each.topic]) for each in records if each.key == key)


def _require_readable(record: Record) -> None:
    try:
        require_readable(record)
    except NewerFormError as error:
        raise QueryError(503, str(error)) from error


def _captured(held: bytes | None) -> int:
    """Return when the event of a state was captured, in microseconds; 0 if there is no state."""
    if held is None:
        return 0
    return to_microseconds(time_of_id(CaseState.from_json(held).captured_id))
