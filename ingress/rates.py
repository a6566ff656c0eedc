"""How often something may happen: a token bucket for each key."""

import time
from collections.abc import Callable


class Rates:
    """Lets each key pass `per_second` times a second on average, and twice that at most at once.

    `per_second` 0 lets everything pass. Keys are kept for ever: there must be a bounded number.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._clock = clock
        self._next: dict[str, float] = {}

    def take(self, key: str) -> bool:
        """Return whether it may happen now; if so, it counts.

        A bucket is held as the time at which it would be full again (GCRA): one number a key.
        """
        if not self._interval:
            return True
        now = self._clock()
        full = max(self._next.get(key, 0.0), now)
        if full - now > 1.0:
            return False
        self._next[key] = full + self._interval
        return True
