"""Which file an event belongs into: it follows from the event's place on its topic alone (pure).

So whatever is done again after a crash makes the same file again (contract §8).
"""

from datetime import date, timedelta
from functools import lru_cache
from typing import Final

from sinks.base import Message

WINDOW_OFFSETS: Final = 10_000
_FIRST_DAY: Final = date(1970, 1, 1)
_DAY_MS: Final = 86_400_000


def file_of(message: Message, ending: str) -> str:
    """Return the path of the file of an event, below the root.

    Its folders are those that readers of Hive's partitions know. A replayed event has its place on
    `replays`.
    """
    day = _day(message.timestamp // _DAY_MS)
    topic = "replays" if message.replayed else message.source
    first = message.offset - message.offset % WINDOW_OFFSETS
    folder = f"domain={message.domain}/kind={message.kind}/day={day}"
    return f"{folder}/{topic}-{message.partition}-{first:020}.{ending}"


@lru_cache(maxsize=64)
def _day(number: int) -> str:
    """Return a day's date; the days are counted since 1970."""
    return str(_FIRST_DAY + timedelta(days=number))
