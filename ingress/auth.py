"""Who may forward to a domain: decided from the request's headers alone, in constant time."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

RequestHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]

#: `WWW-Authenticate` for each kind, the one that a person can act upon first.
CHALLENGES: Final[Mapping[str, bytes]] = {
    "basic": b'Basic realm="casewire", charset="UTF-8"',
    "api-key": b'ApiKey realm="casewire"',
}

#: HQ sends non-ASCII credentials in latin-1 (protocol.md §2), most other clients in UTF-8.
_ENCODINGS: Final = ("utf-8", "latin-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A secret with which HQ may forward to `domains`.

    `basic` needs `username`. `api-key` compares the whole value of `header`, since HQ sends an API
    key verbatim (protocol.md §2).
    """

    name: str
    domains: Collection[str]
    kind: Literal["basic", "api-key"]
    secret: str = field(repr=False)
    username: str = ""
    header: str = "authorization"


@dataclass(frozen=True, slots=True)
class Guard:
    """What a domain accepts, as SHA-256 digests, so that every comparison has the same length."""

    basic: Sequence[tuple[bytes, str]]
    api_keys: Sequence[tuple[bytes, bytes, str]]

    @property
    def challenges(self) -> Sequence[tuple[bytes, bytes]]:
        """The headers that go with a 401."""
        kinds = [
            kind for kind, known in (("basic", self.basic), ("api-key", self.api_keys)) if known
        ]
        return [(b"www-authenticate", CHALLENGES[kind]) for kind in kinds]


def guards(credentials: Iterable[Credential]) -> Mapping[str, Guard]:
    """Return a guard for each domain that a credential names; other domains need none."""
    by_domain: dict[str, list[Credential]] = {}
    for credential in credentials:
        for domain in credential.domains:
            by_domain.setdefault(domain, []).append(credential)
    return {domain: _guard(accepted) for domain, accepted in by_domain.items()}


def secret_headers(credentials: Iterable[Credential]) -> frozenset[str]:
    """Return the names of headers that carry a secret of the configuration, in lower case."""
    return frozenset(item.header.lower() for item in credentials if item.kind == "api-key")


def authenticate(guard: Guard, headers: RequestHeaders) -> str | None:
    """Return the name of the credential that the request proves, None if it proves none.

    The time it takes does not depend on what is right in a wrong credential: all are compared,
    as digests, user name and password in one.
    """
    proven = None
    for name, value in headers:
        for digest, credential in _claims(guard, name, value):
            if hmac.compare_digest(digest[0], digest[1]):
                proven = credential
    return proven


def _claims(guard: Guard, name: bytes, value: bytes) -> Iterator[tuple[tuple[bytes, bytes], str]]:
    sent = None
    for header, expected, credential in guard.api_keys:
        if header == name:
            sent = sent or _digest(value)
            yield (sent, expected), credential
    if name == b"authorization" and guard.basic:
        pair = _digest(_basic_pair(value))
        for expected, credential in guard.basic:
            yield (pair, expected), credential


def _basic_pair(value: bytes) -> bytes:
    """Return `user:password` of a Basic header; what is none becomes a pair that matches none."""
    scheme, _, token = value.strip().partition(b" ")
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(token.strip(), validate=True)
    except binascii.Error:
        return b""


def _guard(credentials: Sequence[Credential]) -> Guard:
    basic = []
    api_keys = []
    for credential in credentials:
        text = credential.secret
        if credential.kind == "basic":
            text = f"{credential.username}:{credential.secret}"
        for encoded in _encodings(text):
            if credential.kind == "basic":
                basic.append((_digest(encoded), credential.name))
            else:
                header = credential.header.lower().encode()
                api_keys.append((header, _digest(encoded), credential.name))
    return Guard(basic, api_keys)


def _encodings(text: str) -> set[bytes]:
    return {
        encoded
        for encoding in _ENCODINGS
        if (encoded := text.encode(encoding, "ignore")).decode(encoding) == text
    }


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
