"""Sessions and the tokens of forms: signed values that need no store.

session   base64url( key id 4 | HMAC 32 | JSON )
CSRF      hexadecimal HMAC of the session's id, or of the visitor's who has none yet
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

import msgspec

from ingress.tokens import Key, Keys

_MAC: Final = 32
_ID_BYTES: Final = 16


class Session(msgspec.Struct, frozen=True):
    """Who has logged in. `binding` ties it to the password; times are seconds since 1970."""

    id: str
    user: str
    expires: int
    binding: str


def new_id() -> str:
    return secrets.token_hex(_ID_BYTES)


def binding_of(stored: str) -> str:
    """Return what ties a session to the stored password that it was given for."""
    return hashlib.sha256(b"casewire console" + stored.encode()).hexdigest()[:16]


def sign_session(key: Key, session: Session) -> str:
    content = msgspec.json.encode(session)
    signed = key.id + _signature(key, content) + content
    return base64.urlsafe_b64encode(signed).decode().rstrip("=")


def read_session(keys: Keys, text: str, now: float) -> Session | None:
    """Return the session of a cookie; None if it is not signed by us, or over."""
    try:
        signed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    key = keys.by_id.get(signed[:4])
    mac, content = signed[4 : 4 + _MAC], signed[4 + _MAC :]
    if key is None or not hmac.compare_digest(_signature(key, content), mac):
        return None
    session = msgspec.json.decode(content, type=Session)
    return session if now < session.expires else None


def csrf_token(key: Key, visitor: str) -> str:
    """Return what each form of a session, or of a visitor, must carry."""
    return hmac.digest(key.token, b"form " + visitor.encode(), "sha256").hex()


def _signature(key: Key, content: bytes) -> bytes:
    return hmac.digest(key.token, b"session " + content, "sha256")
