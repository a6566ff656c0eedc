"""Who may forward to a domain: the configuration as values, and what can be decided at once."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

from ingress.digest import DigestEntry
from ingress.secrets_store import Hashed, Scrypt, StoredSecret, parse_ha1, parse_secret, readings
from ingress.tokens import Keys, binding

Kind: TypeAlias = Literal["basic", "digest", "api-key", "bearer", "oauth2"]
Grant: TypeAlias = Literal["password", "client_credentials"]
RequestHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]
#: User and secret as presented, in each way that the bytes can be meant.
Pairs: TypeAlias = Sequence[tuple[bytes, bytes]]

#: Kinds that need a user name, in HQ called Username or Client ID.
NAMED_KINDS: Final = ("basic", "digest", "bearer", "oauth2")
#: Kinds that need the signing keys.
SIGNED_KINDS: Final = ("digest", "bearer", "oauth2")

_GRANTS: Final[Mapping[str, Grant]] = {"bearer": "password", "oauth2": "client_credentials"}

#: `WWW-Authenticate` for each kind; Digest's is made anew for each answer.
BASIC: Final = b'Basic realm="casewire", charset="UTF-8"'
_API_KEY: Final = b'ApiKey realm="casewire"'
_BEARER: Final = b'Bearer realm="casewire"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A secret with which HQ may forward to `domains`, in a form of `secrets_store`.

    All kinds but `api-key` need `username`. `api-key` compares the whole value of `header`, since
    HQ sends an API key verbatim (protocol.md §2). `bearer` and `oauth2` get a token for theirs.
    """

    name: str
    domains: Collection[str]
    kind: Kind
    secret: str = field(repr=False)
    username: str = ""
    header: str = "authorization"


@dataclass(frozen=True, slots=True)
class Entry:
    """A secret of one user; for an API key the header's name takes the place of the user."""

    name: str
    user: bytes
    secret: StoredSecret

    @classmethod
    def of(cls, credential: Credential) -> "Entry":
        user = credential.username
        if credential.kind == "api-key":
            user = credential.header.lower()
        return cls(credential.name, _sha256(user.encode()), parse_secret(credential.secret))


@dataclass(frozen=True, slots=True)
class Question:
    """Whether any of these pairs proves any of these entries."""

    entries: Sequence[Entry]
    pairs: Pairs


@dataclass(frozen=True, slots=True)
class Guard:
    """What a domain accepts. `headers` are those that can carry a credential of it."""

    basic: Sequence[Entry]
    api_keys: Sequence[Entry]
    digests: Sequence[DigestEntry]
    tokens: Collection[str]
    headers: frozenset[bytes]

    @property
    def needs_keys(self) -> bool:
        return bool(self.digests or self.tokens)

    @property
    def challenges(self) -> Sequence[bytes]:
        """Values of `WWW-Authenticate`, but Digest's."""
        offered = ((BASIC, self.basic), (_API_KEY, self.api_keys), (_BEARER, self.tokens))
        return [challenge for challenge, known in offered if known]

    def questions(self, presented: RequestHeaders) -> Sequence[Question]:
        """Return what there is to compare in the headers that carry credentials."""
        asked = []
        for name, value in presented:
            if self.api_keys:
                asked.append(Question(self.api_keys, [(name, text) for text in readings(value)]))
            if self.basic and name == b"authorization":
                asked.append(Question(self.basic, basic_pairs(value)))
        return asked


@dataclass(frozen=True, slots=True)
class Policy:
    """Whom the ingress knows and believes: one configuration, immutable.

    `domains` empty: any domain is known if `accept_unknown`. A domain without a guard is open.
    `bindings` has each credential that gets tokens.
    """

    domains: frozenset[str]
    accept_unknown: bool
    guards: Mapping[str, Guard]
    grants: Mapping[Grant, Sequence[Entry]]
    bindings: Mapping[str, bytes]
    secret_headers: frozenset[str]
    names: frozenset[str]
    keys: Keys

    def knows(self, domain: str) -> bool:
        return domain in self.domains if self.domains else self.accept_unknown


def policy(
    domains: Collection[str],
    credentials: Collection[Credential],
    keys: Keys | None = None,
    *,
    accept_unknown: bool = True,
) -> Policy:
    """Return the policy of a configuration. Raises ValueError for a secret in no right form."""
    by_domain: dict[str, list[Credential]] = {}
    grants: dict[Grant, list[Entry]] = {}
    for credential in credentials:
        for domain in credential.domains:
            by_domain.setdefault(domain, []).append(credential)
        if credential.kind in _GRANTS:
            grants.setdefault(_GRANTS[credential.kind], []).append(Entry.of(credential))
    return Policy(
        domains=frozenset(domains),
        accept_unknown=accept_unknown,
        guards={domain: _guard(accepted) for domain, accepted in by_domain.items()},
        grants=grants,
        bindings={
            credential.name: binding(credential.secret)
            for credential in credentials
            if credential.kind in _GRANTS
        },
        secret_headers=frozenset(
            credential.header.lower() for credential in credentials if credential.kind == "api-key"
        ),
        names=frozenset(credential.name for credential in credentials),
        keys=keys or Keys(),
    )


def prove_at_once(questions: Iterable[Question]) -> str | None:
    """Return the name of the credential that is proven, without the passwords in scrypt.

    The time it takes does not depend on what is right in a wrong credential: all are compared,
    as digests of user and secret together.
    """
    proven = None
    for question in questions:
        for user, secret in question.pairs:
            sent = _sha256(user) + _sha256(secret)
            for entry in question.entries:
                if isinstance(entry.secret, Hashed) and hmac.compare_digest(
                    sent, entry.user + entry.secret.sha256
                ):
                    proven = entry.name
    return proven


def slow_checks(questions: Iterable[Question]) -> Sequence[tuple[str, bool, Scrypt, bytes]]:
    """Return what scrypt has to be asked: credential, whether the user is right, secrets.

    A wrong user is asked about too: else the time of an answer would tell which users there are.
    """
    return [
        (entry.name, hmac.compare_digest(_sha256(user), entry.user), entry.secret, secret)
        for question in questions
        for user, secret in question.pairs
        for entry in question.entries
        if isinstance(entry.secret, Scrypt)
    ]


def basic_pairs(value: bytes) -> Pairs:
    """Return user and password of a Basic header; what is none gives a pair that matches none."""
    scheme, _, token = value.strip().partition(b" ")
    if scheme.lower() != b"basic":
        return []
    try:
        sent = base64.b64decode(token.strip(), validate=True)
    except binascii.Error:
        return []
    pairs = []
    for text in readings(sent):
        user, _, secret = text.partition(b":")
        pairs.append((user, secret))
    return pairs


def client_pairs(value: bytes) -> Pairs:
    """As `basic_pairs`, and as OAuth 2 has it: form-encoded before base64 (RFC 6749 §2.3.1)."""
    pairs = list(basic_pairs(value))
    decoded = [(_unquoted(user), _unquoted(secret)) for user, secret in pairs]
    return pairs + [pair for pair in decoded if pair not in pairs]


def bearer_token(presented: RequestHeaders) -> bytes | None:
    """Return what follows `Bearer` in an Authorization header."""
    return _after_scheme(presented, b"bearer")


def digest_value(presented: RequestHeaders) -> bytes | None:
    """Return the Authorization header that is of the scheme Digest."""
    text = _after_scheme(presented, b"digest")
    return None if text is None else b"Digest " + text


def _after_scheme(presented: RequestHeaders, wanted: bytes) -> bytes | None:
    for name, value in presented:
        scheme, _, rest = value.strip().partition(b" ")
        if name == b"authorization" and scheme.lower() == wanted:
            return rest.strip()
    return None


def _guard(credentials: Sequence[Credential]) -> Guard:
    keys = [item for item in credentials if item.kind == "api-key"]
    headers = {item.header.lower().encode() for item in keys}
    if len(keys) < len(credentials):
        headers.add(b"authorization")
    return Guard(
        basic=[Entry.of(item) for item in credentials if item.kind == "basic"],
        api_keys=[Entry.of(item) for item in keys],
        digests=[
            DigestEntry(item.name, item.username.encode(), parse_ha1(item.secret, item.username))
            for item in credentials
            if item.kind == "digest"
        ],
        tokens=frozenset(item.name for item in credentials if item.kind in _GRANTS),
        headers=frozenset(headers),
    )


def _unquoted(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _sha256(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
