"""Whether the workers get on: what waits for a consumer group, and since when it does not move."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from casewire.progress import Offsets
from schemas.alert import Alert, group_of
from schemas.times import from_microseconds, to_microseconds

CAUSE: Final = "stalled"
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
    """Watches one worker: `_seen` has each partition's offset, and since when it waits."""

    worker: Worker
    _seen: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)

    def look(self, committed: Offsets, ends: Offsets, now: str) -> None:
        """Note the offsets that the group has committed, and where its partitions end."""
        time = to_microseconds(now)
        for place, end in ends.items():
            offset = committed.get(place, 0)
            before, since = self._seen.get(place, (-1, time))
            waits = offset == before and offset < end
            self._seen[place] = (offset, since if waits else time)

    def stuck(self, now: str, seconds: float) -> Sequence[tuple[str, int]]:
        """Return the partitions in which something has waited for so long, and nothing moved."""
        earliest = to_microseconds(now) - seconds * _SECOND
        return [place for place, (_, since) in self._seen.items() if since < earliest]

    def alert(self, stuck: Sequence[tuple[str, int]], now: str) -> Alert:
        """Return the report that the worker does not get on."""
        since = from_microseconds(min(self._seen[place][1] for place in stuck))
        worker = self.worker
        return Alert(
            group=group_of("", worker.stage, CAUSE, worker.name),
            domain="",
            stage=worker.stage,
            cause=CAUSE,
            target=worker.name,
            text=f"events have waited for it since {since[:16].replace('T', ' ')} UTC, and it "
            "takes none of them",
            captured_ids=(),
            raised_at=now,
        )
