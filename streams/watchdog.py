"""Whether a worker gets on: its committed offsets move where there is something left to read."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

#: Looks in a row that find a partition where it was, with something left to read.
PATIENCE: Final = 6
INTERVAL_SECONDS: Final = 10.0

P = TypeVar("P", bound=Hashable)


class StuckError(Exception):
    """Nothing was committed for a minute although there is something to read."""


@dataclass(slots=True)
class Watchdog(Generic[P]):
    """Counts the looks that found a partition standing still. Pure; `P` names a partition."""

    still: dict[P, int] = field(default_factory=dict)
    last: dict[P, int] = field(default_factory=dict)

    def look(self, ends: Mapping[P, int], committed: Mapping[P, int]) -> list[P]:
        """Return the partitions that have stood still for too long."""
        for place, end in ends.items():
            done = committed.get(place, 0)
            stands = end > done and self.last.get(place) == done
            self.still[place] = self.still.get(place, 0) + 1 if stands else 0
            self.last[place] = done
        return [place for place in ends if self.still[place] >= PATIENCE]

    def rest(self) -> None:
        """Begin anew: what stands still now has a reason."""
        self.still.clear()
        self.last.clear()
