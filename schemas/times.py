"""Times as Casewire writes them: RFC 3339, UTC, six fractional digits, `Z` (contract §4).

In this form the order of the texts is the order of the times.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from time import time_ns

_CANONICAL_LENGTH = len("2026-11-22T10:00:00.000000Z")
_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def canonical(text: str) -> str | None:
    """Return the time that `text` says in canonical form, or None if it says no time.

    CommCare sends offsets with and without minutes, `Z`, bare dates and times without a zone
    (protocol.md §6.1): one without a zone is taken as UTC, a bare date as its midnight.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    if len(text) == _CANONICAL_LENGTH and text[7] + text[10] + text[19] + text[-1] == "-T.Z":
        return text
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    try:
        return from_datetime(time)
    except OverflowError:  # an offset can push the years 1 and 9999 over the edge
        return None


def from_rfc3339(text: str) -> str | None:
    """Return a time of RFC 3339 in canonical form; None for all else that `canonical` takes."""
    return canonical(text.upper()) if _RFC_3339.fullmatch(text) else None


def from_datetime(time: datetime) -> str:
    """Return an aware time in canonical form."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def from_microseconds(microseconds: int) -> str:
    """Return a time given in microseconds since 1970 in canonical form."""
    second, fraction = divmod(microseconds, 1_000_000)
    return f"{_second(second)}.{fraction:06d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:-6]


def now() -> str:
    """Return the present in canonical form."""
    return from_microseconds(time_ns() // 1000)


def to_microseconds(text: str) -> int:
    """Return a canonical time as microseconds since 1970."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND
