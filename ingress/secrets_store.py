"""How secrets are stored, and how one that was presented is compared with them.

A secret file holds one line in one of these forms:

    sha256:<hex>                                 a secret that Casewire made (256 random bits)
    scrypt:<log2 n>:<r>:<p>:<salt hex>:<hex>     a password that a person chose
    ha1:<MD5 hex>[:<SHA-256 hex>]                HTTP Digest, RFC 7616 §3.4.2, in UTF-8
    anything else                                the secret itself
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

REALM: Final = "casewire"

#: OWASP's password storage recommendation with the smallest memory: 16 MiB a check.
_COST: Final = 14
_BLOCK: Final = 8
_PARALLEL: Final = 5
_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32
_MAX_MEMORY: Final = 64 * 1024 * 1024
_SECRET_BYTES: Final = 32

_SHA256: Final = re.compile(r"sha256:(?P<digest>[0-9a-f]{64})")
_SCRYPT: Final = re.compile(
    r"scrypt:(?P<cost>\d{1,2}):(?P<block>\d{1,2}):(?P<parallel>\d{1,2})"
    r":(?P<salt>(?:[0-9a-f]{2}){8,64}):(?P<key>[0-9a-f]{64})"
)
_HA1: Final = re.compile(r"ha1:(?P<md5>[0-9a-f]{32})(?::(?P<sha256>[0-9a-f]{64}))?")
_FORMS: Final = ("sha256:", "scrypt:", "ha1:")


@dataclass(frozen=True, slots=True)
class Hashed:
    """A secret that is too long to be guessed, or that the operator stores as it is."""

    sha256: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Scrypt:
    """A password that is worth guessing; one check takes some 0.2 s and 16 MiB."""

    cost: int
    block: int
    parallel: int
    salt: bytes = field(repr=False)
    key: bytes = field(repr=False)

    def proves(self, presented: bytes) -> bool:
        derived = hashlib.scrypt(
            presented,
            salt=self.salt,
            n=1 << self.cost,
            r=self.block,
            p=self.parallel,
            maxmem=2 * _MAX_MEMORY,
            dklen=_KEY_BYTES,
        )
        return hmac.compare_digest(derived, self.key)


@dataclass(frozen=True, slots=True)
class HA1:
    """What HTTP Digest needs: as good as the password for whoever reads it. In hexadecimal."""

    md5: str = field(repr=False)
    sha256: str | None = field(repr=False)


StoredSecret: TypeAlias = Hashed | Scrypt


def stored_form(text: str) -> str:
    """Return the name of the form of a secret file's text."""
    return next((form.removesuffix(":") for form in _FORMS if text.startswith(form)), "plain")


def parse_secret(text: str) -> StoredSecret:
    """Return the secret of a file for every kind but Digest. Raises ValueError."""
    form = stored_form(text)
    if form == "plain":
        return Hashed(hashlib.sha256(text.encode()).digest())
    if match := _SHA256.fullmatch(text):
        return Hashed(bytes.fromhex(match["digest"]))
    if (match := _SCRYPT.fullmatch(text)) and _affordable(match):
        return Scrypt(
            int(match["cost"]),
            int(match["block"]),
            int(match["parallel"]),
            bytes.fromhex(match["salt"]),
            bytes.fromhex(match["key"]),
        )
    if form == "ha1":
        raise ValueError("an ha1: secret is for the kind digest only")
    raise ValueError(f"is no right {form}: secret; make one with casewire auth add")


def parse_ha1(text: str, username: str) -> HA1:
    """Return the secret of a file for Digest. Raises ValueError."""
    form = stored_form(text)
    if form == "plain":
        return _ha1(username, text)
    if match := _HA1.fullmatch(text):
        return HA1(match["md5"], match["sha256"])
    if form == "ha1":
        raise ValueError("is no right ha1: secret; make one with casewire auth add")
    raise ValueError(f"digest cannot use a {form}: secret; make one with casewire auth add")


def new_secret() -> str:
    """Return a secret of 256 random bits, 64 characters that no encoding changes."""
    return secrets.token_hex(_SECRET_BYTES)


def sha256_text(secret: str) -> str:
    """Return the line to store for a secret that `new_secret` made."""
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


def scrypt_text(password: str) -> str:
    """Return the line to store for a password that a person chose."""
    salt = secrets.token_bytes(_SALT_BYTES)
    key = hashlib.scrypt(
        password.encode(),
        salt=salt,
        n=1 << _COST,
        r=_BLOCK,
        p=_PARALLEL,
        maxmem=2 * _MAX_MEMORY,
        dklen=_KEY_BYTES,
    )
    return f"scrypt:{_COST}:{_BLOCK}:{_PARALLEL}:{salt.hex()}:{key.hex()}"


def ha1_text(username: str, secret: str) -> str:
    """Return the line to store for Digest."""
    made = _ha1(username, secret)
    return f"ha1:{made.md5}:{made.sha256}"


def readings(presented: bytes) -> Iterator[bytes]:
    """Yield what bytes may mean in UTF-8: HQ sends credentials in latin-1 (protocol.md §2)."""
    yield presented
    if not presented.isascii():
        yield presented.decode("latin-1").encode()


def _affordable(match: re.Match[str]) -> bool:
    cost, block, parallel = int(match["cost"]), int(match["block"]), int(match["parallel"])
    return min(cost, block, parallel) >= 1 and 128 * block << cost <= _MAX_MEMORY


def _ha1(username: str, secret: str) -> HA1:
    text = f"{username}:{REALM}:{secret}".encode()
    md5 = hashlib.md5(text, usedforsecurity=False).hexdigest()
    return HA1(md5, hashlib.sha256(text).hexdigest())
