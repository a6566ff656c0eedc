"""When a project space that used to send has stopped (pure).

What is kept of each domain and kind is the hours in which something came, of the last 15 days. Two
questions are asked of them:

- How many hours have gone by in silence in which something came a week ago *and* two weeks ago?
  Nights, week-ends and market days are no silence then, and an outage of ours is no rhythm.
- For those who send too seldom for that: has it been silent for twice as long as usual? Usual is
  the longest silence but one: a single holiday or outage makes nobody deaf.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

HOUR_MICROSECONDS: Final = 3600 * 1_000_000
_WEEK: Final = 7 * 24
_KEPT: Final = 15 * 24
#: Nobody who sends once a day or less is missed before.
_LEAST_GAP: Final = 24
#: With fewer silences seen, or without two week-ends, it cannot be said what is usual.
_LEAST_GAPS: Final = 3
_LEAST_SPAN: Final = 13 * 24


def with_hour(hours: Sequence[int], hour: int) -> Sequence[int]:
    """Return the hours (since 1970, in order) with one more, those that are too old left out."""
    newest = max(hour, hours[-1]) if hours else hour
    return sorted({each for each in (*hours, hour) if each > newest - _KEPT})


def silent(hours: Sequence[int], now: int, limit: int) -> bool:
    """Whether it is silent that used to send. `now` is the hour that has just begun.

    `limit`: so many hours in which something usually comes have gone by without anything.
    """
    return missed(hours, now) >= limit or _overdue(hours, now)


def missed(hours: Sequence[int], now: int) -> int:
    """Return how many hours went by in silence in which something came in both weeks before."""
    came = set(hours)
    since = range(hours[-1] + 1, now) if hours else ()
    return sum(hour - _WEEK in came and hour - 2 * _WEEK in came for hour in since)


def _overdue(hours: Sequence[int], now: int) -> bool:
    gaps = sorted((later - earlier for earlier, later in pairwise(hours)), reverse=True)
    if len(gaps) < _LEAST_GAPS or hours[-1] - hours[0] < _LEAST_SPAN:
        return False
    return now - hours[-1] > max(2 * gaps[1], _LEAST_GAP)
