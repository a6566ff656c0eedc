"""HTTP Digest (RFC 7616) as `requests` speaks it, with nonces that need no store.

A nonce may be used more than once while it lives: HQ's payloads of one second share it, each with
the count 1 and a number of its own. The same proof twice is for `Access` to judge.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

from ingress.secrets_store import HA1, REALM, readings
from ingress.tokens import Key, Keys, nonce_state, sign_nonce

Algorithm: TypeAlias = Literal["MD5", "SHA-256"]

_PARAMETER: Final = re.compile(
    r'[\s,]*(?P<name>[A-Za-z0-9*-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]*))'
)
_NEEDED: Final = ("username", "nonce", "uri", "response", "nc", "cnonce", "qop")
_COUNT: Final = re.compile(r"[0-9a-fA-F]{8}")


@dataclass(frozen=True, slots=True)
class DigestEntry:
    """`user` is the user name in UTF-8."""

    name: str
    user: bytes
    ha1: HA1


Judged: TypeAlias = Literal["proven", "stale", "unknown", "moved", "wrong"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request.

    `stale`: right but for the nonce. `unknown`: the nonce's key is not known here, or its clock
    is ahead. `moved`: right but for another address. `wrong`: wrong. If it is `proven`, `name` is
    the credential's and `proof` the response: no other request has the same.
    """

    judged: Judged
    name: str = ""
    proof: bytes = b""


_WRONG: Final = Outcome("wrong")


def challenges(
    key: Key, entries: Iterable[DigestEntry], now: float, *, stale: bool
) -> Sequence[bytes]:
    """Return the values of `WWW-Authenticate`, each of its own algorithm.

    `requests` takes the last of several, so that is the one that every client knows.
    """
    nonce = sign_nonce(key, now)
    offered: list[Algorithm] = ["MD5"]
    if all(entry.ha1.sha256 is not None for entry in entries):
        offered.insert(0, "SHA-256")
    tail = ", stale=true" if stale else ""
    return [
        f'Digest realm="{REALM}", qop="auth", algorithm={algorithm}, nonce="{nonce}"{tail}'.encode()
        for algorithm in offered
    ]


def check(
    value: bytes, method: str, target: bytes, entries: Sequence[DigestEntry], keys: Keys, now: float
) -> Outcome:
    """Judge an Authorization header. `target` is path and query as they came.

    The time it takes does not depend on what is right in a wrong one.
    """
    sent = _parameters(value)
    if sent is None:
        return _WRONG
    state = nonce_state(keys, sent["nonce"], now)
    proven = _proven(sent, method, entries)
    if state == "unknown":
        return Outcome("unknown")
    if proven is None or state == "forged":
        return _WRONG
    if state == "stale":
        return Outcome("stale")
    if not _same_address(sent["uri"], target):
        return Outcome("moved")
    return Outcome("proven", proven, bytes.fromhex(sent["response"]))


def _parameters(value: bytes) -> Mapping[str, str] | None:
    """Return the parameters of a Digest header, None if one is missing or not what we offered."""
    _, _, text = value.decode("latin-1").strip().partition(" ")
    sent: dict[str, str] = {}
    for match in _PARAMETER.finditer(text):
        quoted = match["quoted"]
        plain = match["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        sent.setdefault(match["name"].lower(), plain)
    if any(name not in sent for name in _NEEDED):
        return None
    if sent["qop"] != "auth" or sent.get("realm") != REALM or not _nonzero_count(sent["nc"]):
        return None
    return sent if sent.get("algorithm", "MD5").upper() in _HASHES else None


def _nonzero_count(text: str) -> bool:
    return _COUNT.fullmatch(text) is not None and int(text, 16) > 0


def _proven(sent: Mapping[str, str], method: str, entries: Sequence[DigestEntry]) -> str | None:
    algorithm = sent.get("algorithm", "MD5").upper()
    digest = _HASHES[algorithm]
    users = list(readings(sent["username"].encode("latin-1")))
    ha2 = digest(f"{method}:{sent['uri']}".encode("latin-1"))
    middle = f"{sent['nonce']}:{sent['nc']}:{sent['cnonce']}:auth:{ha2}"
    response = sent["response"].lower().encode("latin-1")
    proven = None
    for entry in entries:
        ha1 = entry.ha1.md5 if algorithm == "MD5" else entry.ha1.sha256 or ""
        right = hmac.compare_digest(digest(f"{ha1}:{middle}".encode("latin-1")).encode(), response)
        known = [hmac.compare_digest(user, entry.user) for user in users]
        if right & any(known) and ha1:
            proven = entry.name
    return proven


def _same_address(uri: str, target: bytes) -> bool:
    """Compare as a proxy may rewrite it: the same characters, percent-encoded or not."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return unquote_to_bytes(path.encode("latin-1")) == unquote_to_bytes(target)


def _md5(value: bytes) -> str:
    return hashlib.md5(value, usedforsecurity=False).hexdigest()


def _sha256(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


_HASHES: Final[Mapping[str, Callable[[bytes], str]]] = {"MD5": _md5, "SHA-256": _sha256}
