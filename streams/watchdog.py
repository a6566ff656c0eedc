"""Whether a worker gets on: its committed offsets move where there is something left to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import WorkerError

#: Looks in a row that find something where it was, with work left.
PATIENCE: Final = 6
INTERVAL_SECONDS: Final = 10.0


class StuckError(WorkerError):
    """Nothing has moved for a minute although there is work left."""


@dataclass(slots=True)
class Watchdog:
    """Counts the looks that found something standing still: partitions by name, or a rebalance.

    What a look does not name begins anew with the next that does. Pure.
    """

    still: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)

    def look(self, ends: Mapping[str, int], done: Mapping[str, int]) -> Sequence[str]:
        """Return what has stood still for too long short of its end."""
        reached = {name: done.get(name, 0) for name in ends}
        self.still = {
            name: self.still.get(name, 0) + 1
            if end > reached[name] and self.last.get(name) == reached[name]
            else 0
            for name, end in ends.items()
        }
        self.last = reached
        return [name for name, looks in self.still.items() if looks >= PATIENCE]

    def rest(self) -> None:
        """Begin anew: what stands still now has a reason."""
        self.still = {}
        self.last = {}
