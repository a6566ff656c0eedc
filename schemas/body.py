"""From the bytes of a captured body to JSON values, within limits."""

import zlib
from typing import Final

import orjson

from schemas.envelope import Captured
from schemas.errors import InvalidEventError
from schemas.values import Json

#: What is unpacked or parsed at most; the default of the ingress's `max_body_bytes`.
MAX_BYTES: Final = 50 * 1024 * 1024
#: Levels of arrays and objects. orjson writes at most 254, and events wrap what they hold.
MAX_JSON_DEPTH: Final = 200

UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")

_BOM: Final = b"\xef\xbb\xbf"
_GZIP: Final = zlib.MAX_WBITS | 16


def unpacked(captured: Captured) -> bytes:
    """Return the body without content encoding, byte order mark and blanks around it.

    HQ sends no content encoding (protocol.md §1.0), but a proxy between may.
    """
    encoding = (captured.header("content-encoding") or "identity").strip().lower()
    body = captured.body
    if encoding in ("gzip", "x-gzip"):
        body = _gunzipped(body)
    elif encoding not in ("identity", ""):
        raise InvalidEventError(
            "unknown_kind",
            "the body has a content encoding other than gzip",
            path="headers.content-encoding",
        )
    if len(body) > MAX_BYTES:
        raise _too_large()
    if body.startswith(UTF16_MARKS):
        return body
    return body.removeprefix(_BOM).strip()


def _gunzipped(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP)
    try:
        plain = unpacker.decompress(body, MAX_BYTES + 1)
    except zlib.error:
        plain = b""
    if len(plain) > MAX_BYTES:
        raise _too_large()
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidEventError(
            "unknown_kind", "the body is not the gzip that its content encoding promises"
        )
    return plain


def _too_large() -> InvalidEventError:
    return InvalidEventError("too_large", f"the body is longer than {MAX_BYTES} bytes")


def load_json(body: bytes) -> Json:
    """Parse JSON. Broken or too deep JSON is an InvalidEventError `malformed_json`."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidEventError(
            "malformed_json",
            f"the JSON is broken in line {error.lineno}, column {error.colno}: {error.msg}",
        ) from None
    # Fewer brackets than levels allowed: no need to look at the levels.
    if body.count(b"{") + body.count(b"[") > MAX_JSON_DEPTH and _is_deeper(value, MAX_JSON_DEPTH):
        raise InvalidEventError(
            "malformed_json", f"the JSON has more than {MAX_JSON_DEPTH} levels of nesting"
        )
    return value


def _is_deeper(value: Json, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(
            _is_deeper(item, levels - 1) for item in value.values() if type(item) in _NESTED
        )
    if isinstance(value, list):
        return levels == 0 or any(
            _is_deeper(item, levels - 1) for item in value if type(item) in _NESTED
        )
    return False


_NESTED: Final = frozenset({dict, list})
