"""Signed values that need no store: access tokens and Digest nonces.

Both carry the id of the key that signed them, so that a key which has not reached this process
yet can be told from a forgery. HQ drops for good what gets a 401 (protocol.md §2).

    token    "cw1." base64url( key id 4 | expiry 8 | binding 8 | credential's name | HMAC 32 )
    nonce    base64url( key id 4 | time 8 | HMAC 16 )
"""

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from schemas.errors import UnavailableError

#: HQ fetches a token before each payload, and gives the payload six minutes.
TOKEN_SECONDS: Final = 3600
#: HQ uses a nonce at once; an hour forgives machines whose clocks differ.
NONCE_SECONDS: Final = 3600

_TOKEN_PREFIX: Final = b"cw1."
_TOKEN: Final = struct.Struct(">4sQ8s")
_NONCE: Final = struct.Struct(">4sQ")
_TOKEN_MAC: Final = 32
_NONCE_MAC: Final = 16
_KEY_BYTES: Final = 32
_KEY_LINE: Final = re.compile(r"(?:[0-9a-f]{2}){32,128}", re.IGNORECASE)

NonceState: TypeAlias = Literal["good", "stale", "unknown", "forged"]


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key; `token` and `nonce` are derived from it, so that neither passes as other."""

    id: bytes
    token: bytes = field(repr=False)
    nonce: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> "Key":
        return cls(
            hmac.digest(secret, b"casewire key id", "sha256")[:4],
            hmac.digest(secret, b"casewire token", "sha256"),
            hmac.digest(secret, b"casewire nonce", "sha256"),
        )


@dataclass(frozen=True, slots=True)
class Keys:
    """The first one signs, all of them verify. Without any, `missing` says why."""

    signing: Key | None = None
    by_id: Mapping[bytes, Key] = field(default_factory=dict)
    missing: str = "no signing key is configured"

    @classmethod
    def of(cls, *all_secrets: bytes) -> "Keys":
        made = [Key.of(secret) for secret in all_secrets]
        return cls(made[0], {key.id: key for key in reversed(made)}, "")


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says whose signature is right."""

    credential: str
    binding: bytes
    expires: int


def looks_like_token(value: bytes) -> bool:
    return value.startswith(_TOKEN_PREFIX)


def binding(stored: str) -> bytes:
    """Return what ties a token to the stored secret that it was given for, 8 bytes."""
    return hashlib.sha256(b"casewire binding" + stored.encode()).digest()[:8]


def sign_token(key: Key, token: Token) -> str:
    payload = _TOKEN.pack(key.id, token.expires, token.binding) + token.credential.encode()
    mac = hmac.digest(key.token, payload, "sha256")
    return _TOKEN_PREFIX.decode() + base64.urlsafe_b64encode(payload + mac).decode().rstrip("=")


def read_token(keys: Keys, value: bytes) -> Token | Literal["unknown"] | None:
    """Return what a token says; "unknown" if its key is not known here, None if it is no token."""
    content = _decoded(value.removeprefix(_TOKEN_PREFIX))
    if len(content) < _TOKEN.size + _TOKEN_MAC:
        return None
    payload, mac = content[:-_TOKEN_MAC], content[-_TOKEN_MAC:]
    key_id, expires, bound = _TOKEN.unpack_from(payload)
    key = keys.by_id.get(key_id)
    if key is None:
        return "unknown"
    if not hmac.compare_digest(hmac.digest(key.token, payload, "sha256"), mac):
        return None
    return Token(payload[_TOKEN.size :].decode(), bound, expires)


def sign_nonce(key: Key, now: float) -> str:
    payload = _NONCE.pack(key.id, int(now))
    mac = hmac.digest(key.nonce, payload, "sha256")[:_NONCE_MAC]
    return base64.urlsafe_b64encode(payload + mac).decode().rstrip("=")


def nonce_state(keys: Keys, nonce: str, now: float) -> NonceState:
    """Judge a nonce. One from a clock that is far ahead is "unknown": not the sender's fault."""
    content = _decoded(nonce.encode())
    if len(content) != _NONCE.size + _NONCE_MAC:
        return "forged"
    key_id, made = _NONCE.unpack_from(content)
    key = keys.by_id.get(key_id)
    if key is None:
        return "unknown"
    mac = hmac.digest(key.nonce, content[: _NONCE.size], "sha256")[:_NONCE_MAC]
    if not hmac.compare_digest(mac, content[_NONCE.size :]):
        return "forged"
    if made > now + NONCE_SECONDS:
        return "unknown"
    return "stale" if made < now - NONCE_SECONDS else "good"


def read_keys(file: Path) -> Keys:
    """Read a key file: a key a line, at least 64 hexadecimal digits; lines with # are remarks.

    Raises UnavailableError.
    """
    try:
        lines = file.read_text(encoding="ascii").split("\n")
    except OSError as error:
        raise UnavailableError(
            f"the key file {file} cannot be read ({error.strerror}); make it readable"
        ) from error
    except UnicodeDecodeError as error:
        raise UnavailableError(f"the key file {file} is not text; correct it") from error
    written = [text for line in lines if (text := line.strip()) and not text.startswith("#")]
    if not written or not all(_KEY_LINE.fullmatch(text) for text in written):
        raise UnavailableError(
            f"the key file {file} must hold a key a line, at least 64 hexadecimal digits; "
            "make one with openssl rand -hex 32"
        )
    return Keys.of(*(bytes.fromhex(text) for text in written))


def make_key_file(file: Path, setting: str = "[ingress] token_key_file") -> None:
    """Write a new key unless the file is there, whole or not at all, readable by us alone.

    Of several processes that do so at once, one wins. Raises UnavailableError, which names the
    setting that gives another file.
    """
    if file.exists():
        return
    new = file.with_name(f"{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(f"{secrets.token_hex(_KEY_BYTES)}\n")
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            file.hardlink_to(new)
    except OSError as error:
        raise UnavailableError(
            f"the key file {file} cannot be written ({error.strerror}); "
            f"make its folder writable, or set {setting}"
        ) from error
    finally:
        new.unlink(missing_ok=True)


def _decoded(text: bytes) -> bytes:
    """Return the bytes of unpadded base64url; what is none decodes to nothing."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return b""
