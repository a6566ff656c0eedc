"""Whether the workers get on: what waits for a consumer group, and since when it does not move."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from casewire.progress import Offsets, behind
from schemas.alert import Alert, group_of
from schemas.times import from_microseconds, to_microseconds

CAUSE: Final = "stalled"
#: A worker of which no process runs for so long has crashed, and nobody has started it anew. A
#: rolling restart takes a quarter of that.
GONE_SECONDS: Final = 120.0
_SECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Worker:
    """A role with a consumer group: what it reads (full names of topics), how long it may rest."""

    stage: str
    name: str
    group: str
    topics: Sequence[str]
    patience: float


@dataclass(slots=True)
class Progress:
    """Watches one worker.

    `_seen` has each partition's offset, and since when it waits; `_gone_since` is when no process
    of it was in its group first, None while one is. `idle`: nothing waits for it.
    """

    worker: Worker
    idle: bool = False
    _seen: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    _gone_since: int | None = None

    def look(self, committed: Offsets, ends: Offsets, members: int, now: str) -> None:
        """Note what the group has committed, where its partitions end, how many are in it."""
        time = to_microseconds(now)
        for place, end in ends.items():
            offset = committed.get(place, 0)
            before, since = self._seen.get(place, (-1, time))
            waits = offset == before and offset < end
            self._seen[place] = (offset, since if waits else time)
        self.idle = not behind(ends, committed)
        if members:
            self._gone_since = None
        elif self._gone_since is None:
            self._gone_since = time

    def not_seen(self) -> None:
        """Note that the broker did not answer: who is away then is no news."""
        self._gone_since = None

    def stuck(self, now: str, seconds: float) -> Sequence[tuple[str, int]]:
        """Return the partitions in which something has waited for so long, and nothing moved."""
        earliest = to_microseconds(now) - seconds * _SECOND
        return [place for place, (_, since) in self._seen.items() if since < earliest]

    def report(self, now: str) -> Alert | None:
        """Return the report that the worker does not get on, None if it does."""
        gone = self._gone_since
        stuck = self.stuck(now, self.worker.patience)
        if gone is not None and to_microseconds(now) - gone >= _GONE and not self.idle:
            text = f"events wait for it, and no process of it has run since {_minute(gone)}"
        elif stuck:
            since = min(self._seen[place][1] for place in stuck)
            text = f"events have waited for it since {_minute(since)}, and it takes none of them"
        else:
            return None
        worker = self.worker
        return Alert(
            group=self.group,
            domain="",
            stage=worker.stage,
            cause=CAUSE,
            target=worker.name,
            text=text,
            captured_ids=(),
            raised_at=now,
        )

    @property
    def group(self) -> str:
        return group_of("", self.worker.stage, CAUSE, self.worker.name)


_GONE: Final = GONE_SECONDS * _SECOND


def _minute(microseconds: int) -> str:
    return f"{from_microseconds(microseconds)[:16].replace('T', ' ')} UTC"
