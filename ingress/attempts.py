"""What has been judged, what has been used, how many guesses an address has left. All bounded."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

#: A wrong configuration in HQ tries a few secrets; a guesser tries thousands.
BURST: Final = 20
SECONDS_PER_ATTEMPT: Final = 3.0

_SOURCES: Final = 10_000


@dataclass(slots=True)
class Verdicts:
    """Remembers the credential (or "" for none) that a presented secret proved.

    An entry that is used stays; one that is not used for `seconds` goes. Of more than `size` the
    least recently renewed goes.
    """

    size: int
    seconds: float
    _entries: dict[bytes, tuple[str, float]] = field(default_factory=dict)

    def get(self, key: bytes, now: float) -> str | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        name, until = entry
        if until - now < self.seconds / 2:
            del self._entries[key]
            if until < now:
                return None
            self._entries[key] = (name, now + self.seconds)
        return name

    def put(self, key: bytes, name: str, now: float) -> None:
        self._entries.pop(key, None)
        self._entries[key] = (name, now + self.seconds)
        if len(self._entries) > self.size:
            del self._entries[next(iter(self._entries))]


@dataclass(slots=True)
class Used:
    """Remembers at least the last `size` keys, and at most twice as many."""

    size: int
    _newer: set[bytes] = field(default_factory=set)
    _older: set[bytes] = field(default_factory=set)

    def first(self, key: bytes) -> bool:
        """Return whether the key is new; it is none from now on."""
        if key in self._newer or key in self._older:
            return False
        if len(self._newer) >= self.size:
            self._newer, self._older = set(), self._newer
        self._newer.add(key)
        return True


@dataclass(slots=True)
class Attempts:
    """A token bucket for each source: `burst` wrong secrets, then one in some seconds."""

    burst: int = BURST
    seconds_per_attempt: float = SECONDS_PER_ATTEMPT
    _buckets: dict[Hashable, tuple[float, float]] = field(default_factory=dict)

    def take(self, source: Hashable, now: float) -> bool:
        """Return whether a secret of this source may be judged; if so, one attempt is used."""
        left, at = self._buckets.pop(source, (float(self.burst), now))
        left = min(float(self.burst), left + (now - at) / self.seconds_per_attempt)
        allowed = left >= 1
        self._buckets[source] = (left - allowed, now)
        if len(self._buckets) > _SOURCES:
            del self._buckets[next(iter(self._buckets))]
        return allowed

    def give_back(self, source: Hashable) -> None:
        """Undo `take`: the secret was right, or could not be judged."""
        left, at = self._buckets.get(source, (0.0, 0.0))
        if left + 1 >= self.burst:
            self._buckets.pop(source, None)
        else:
            self._buckets[source] = (left + 1, at)
