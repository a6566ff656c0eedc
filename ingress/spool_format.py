"""The bytes of a spool segment: a header, then records that can each be found and checked alone.

    header   magic `CWSPOOL`, version (1 byte)
    record   nonce (8 bytes), length (u32), CRC-32 of length and payload (u32), payload
    payload  MessagePack: [milliseconds since 1970, event id, headers, body]

Numbers are little-endian. The nonce is random, one a segment, and in the file's name
(`<sequence>-<nonce>.segment`): it marks where records may begin, so that reading goes on after a
damaged one; and nobody outside knows it, so that no body can pass for a record.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from ingress.records import Event

FORMAT: Final = 1
_MAGIC: Final = b"CWSPOOL"
HEADER: Final = _MAGIC + bytes([FORMAT])
NONCE_BYTES: Final = 8

_FRAME: Final = struct.Struct("<8sII")
_LENGTH: Final = struct.Struct("<I")
_NAME: Final = re.compile(r"(?P<sequence>[0-9]{12})-(?P<nonce>[0-9a-f]{16})\.segment")

_Payload: TypeAlias = tuple[int, str, list[tuple[str, bytes]], bytes]
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Payload)


@dataclass(frozen=True, slots=True)
class Stored:
    """An intact record; `end` is the offset behind it, `milliseconds` when it was spooled."""

    event: Event
    milliseconds: int
    end: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes from `start` to `end` that were records once, or may have been: events are lost."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Torn:
    """A last record that was never written whole, so never acknowledged, from `start` on."""

    start: int
    end: int


Found: TypeAlias = Stored | Damaged | Torn


def segment_name(sequence: int, nonce: bytes) -> str:
    return f"{sequence:012d}-{nonce.hex()}.segment"


def parse_segment_name(name: str) -> tuple[int, bytes] | None:
    match = _NAME.fullmatch(name)
    return (int(match["sequence"]), bytes.fromhex(match["nonce"])) if match else None


def encode_payload(event: Event, milliseconds: int) -> bytes:
    return _ENCODER.encode((milliseconds, event.id, event.headers, event.body))


def frame(payloads: Sequence[bytes], nonce: bytes) -> bytes:
    """Return the records of those payloads."""
    parts = []
    for payload in payloads:
        parts.append(_FRAME.pack(nonce, len(payload), _checksum(payload)))
        parts.append(payload)
    return b"".join(parts)


def is_newer(header: bytes) -> bool:
    """Return whether a segment that begins so is of a format that is not known here."""
    return header[:-1] == _MAGIC and header[-1] > FORMAT


def framed_size(payload: bytes) -> int:
    return _FRAME.size + len(payload)


def scan(data: bytes, nonce: bytes, *, header: bool = True) -> Iterator[Found]:
    """Yield what is in a segment; without `header`, `data` begins with a later record.

    A record comes out exactly once if all of its bytes are intact, and not at all otherwise.
    """
    position = len(HEADER) if header and data.startswith(HEADER) else 0
    while position < len(data):
        found = _record(data, nonce, position)
        if found is not None:
            yield found
            position = found.end
            continue
        following = _next_record(data, nonce, position + 1)
        if following is None:
            yield _end(data, position)
            return
        yield Damaged(position, following)
        position = following


def _record(data: bytes, nonce: bytes, position: int) -> Stored | None:
    payload_at = position + _FRAME.size
    if payload_at > len(data):
        return None
    marker, length, checksum = _FRAME.unpack_from(data, position)
    end = payload_at + length
    if marker != nonce or end > len(data):
        return None
    payload = data[payload_at:end]
    if _checksum(payload) != checksum:
        return None
    try:
        milliseconds, event_id, headers, body = _DECODER.decode(payload)
    except msgspec.DecodeError:
        return None
    return Stored(Event(event_id, headers, body), milliseconds, end)


def _next_record(data: bytes, nonce: bytes, position: int) -> int | None:
    while True:
        position = data.find(nonce, position)
        if position < 0:
            return None
        if _record(data, nonce, position) is not None:
            return position
        position += 1


def _end(data: bytes, start: int) -> Damaged | Torn:
    """Judge bytes behind which nothing is intact.

    A write that a crash cut off leaves the beginning of a record. If a record's whole length is
    there, it may have been acknowledged, and is damaged.
    """
    rest = data[start:]
    if len(rest) >= _FRAME.size:
        length = _FRAME.unpack_from(rest)[1]
        if _FRAME.size + length <= len(rest):
            return Damaged(start, len(data))
    return Torn(start, len(data))


def _checksum(payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_LENGTH.pack(len(payload))))
