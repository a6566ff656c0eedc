"""Which file an event belongs into: it follows from the event's place on its topic alone (pure).

So whatever is done again after a crash makes the same file again (contract §8).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from sinks.base import Message

WINDOW_OFFSETS: Final = 10_000


def file_of(message: Message, ending: str) -> str:
    """Return the path of the file of an event, below the root.

    Its folders are those that readers of Hive's partitions know. A replayed event has its place on
    `replays`.
    """
    day = datetime.fromtimestamp(message.timestamp / 1000, UTC).date()
    topic = "replays" if message.replayed else message.source
    first = message.offset - message.offset % WINDOW_OFFSETS
    folder = f"domain={message.domain}/kind={message.kind}/day={day}"
    return f"{folder}/{topic}-{message.partition}-{first:020}.{ending}"


def by_file(messages: Mapping[int, Message], ending: str) -> Mapping[str, Sequence[Message]]:
    """Return the messages of each file."""
    files: defaultdict[str, list[Message]] = defaultdict(list)
    for message in messages.values():
        files[file_of(message, ending)].append(message)
    return files
