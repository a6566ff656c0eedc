"""A captured event as Kafka records: one, or pieces of its body and a record that claims them.

A record that the broker refuses as too large poisons an idempotent producer for good (measured.md
§3), so the size of a record is known, as an upper bound, before it is appended.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal, TypeAlias

from schemas.claim import CLAIM, PIECE, Claim
from schemas.topics import MEBIBYTE

TopicName: TypeAlias = Literal["captured", "bodies"]

TOPIC_NAMES: Final[Sequence[TopicName]] = ("captured", "bodies")

PIECE_BYTES: Final = MEBIBYTE

#: A batch's header, and a record's attributes, length, timestamp, offset, key and value lengths.
_BATCH_OVERHEAD: Final = 61 + 40
#: Lengths of name and value, five bytes each at most.
_HEADER_OVERHEAD: Final = 10


@dataclass(frozen=True, slots=True)
class Event:
    """A captured event; `headers` are all headers of its record (`captured_headers`)."""

    id: str
    headers: Sequence[tuple[str, bytes]]
    body: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    topic: TopicName
    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]

    @property
    def size(self) -> int:
        """Bytes of a batch that holds this record alone, at most."""
        size = _BATCH_OVERHEAD + len(self.key) + len(self.value or b"")
        # Names are UTF-8 in Kafka; latin-1, which HTTP's bytes become, at most doubles.
        size += 2 * sum(map(len, chain.from_iterable(self.headers)))
        return size + _HEADER_OVERHEAD * len(self.headers)


def captured_record(event: Event) -> Record:
    return Record("captured", event.id.encode(), event.body, event.headers)


def claim_records(event: Event, sha256: str) -> Iterator[Record]:
    """Yield the pieces of the body, then the record that claims them.

    `sha256` is the body's, in hex. Each record must be durable before the next is sent, so that a
    claim never names what is not there.
    """
    key = event.id.encode()
    starts = range(0, len(event.body), PIECE_BYTES)
    for index, start in enumerate(starts):
        piece = event.body[start : start + PIECE_BYTES]
        yield Record("bodies", key, piece, [(PIECE, str(index).encode())])
    claim = str(Claim(len(starts), len(event.body), sha256)).encode()
    yield Record("captured", key, None, [*event.headers, (CLAIM, claim)])
