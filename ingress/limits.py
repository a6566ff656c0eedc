"""How much may be under way at once."""

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """Counts events and bytes against a limit of each. What was taken must be given back."""

    max_events: int
    max_bytes: int
    events: int = 0
    bytes: int = 0

    def take(self, size: int, *, events: int = 0) -> bool:
        """Return whether there is room for `size` bytes and `events` more; if so, take it."""
        if self.events + events > self.max_events or self.bytes + size > self.max_bytes:
            return False
        self.events += events
        self.bytes += size
        return True

    def give_back(self, size: int, *, events: int = 0) -> None:
        self.events -= events
        self.bytes -= size
