"""Whether a record fits its topic: known before it is appended, or it would never be taken back.

A record that the broker refuses as too large poisons an idempotent producer for good (measured.md
§3). So whatever makes a record out of what was sent asks here first.
"""

from itertools import chain
from typing import Final

from schemas.errors import InvalidEventError
from schemas.topics import TOPICS
from streams.records import Out

#: HQ's ids have 255 characters at most (its database); the project space comes before them.
LARGEST_KEY_BYTES: Final = 2048
#: What a record batch, and what later stages add to a record, may take besides.
BATCH_OVERHEAD_BYTES: Final = 4096


def fitting(out: Out, topic: str) -> Out:
    """Return the record if `topic` (a short name) can take it. Raises InvalidEventError if not."""
    if len(out.key) > LARGEST_KEY_BYTES:
        raise InvalidEventError("invalid_field", "the id is longer than any of CommCare HQ's")
    if record_bytes(out) > TOPICS[topic].max_message_bytes:
        raise InvalidEventError("too_large", f"its record for {topic} would be too large")
    return out


def record_bytes(out: Out) -> int:
    """Return at most how many bytes of a record batch a record takes alone."""
    # Names are UTF-8 in Kafka; latin-1, which HTTP's bytes become, at most doubles.
    headers = 2 * sum(map(len, chain.from_iterable(out.headers))) + 10 * len(out.headers)
    return BATCH_OVERHEAD_BYTES + len(out.key) + len(out.value or b"") + headers
