"""How CommCare HQ logs in: pure rules beside those of `casewire.hq` (protocol.md §2).

Whatever takes more than one request is done anew for each payload, since HQ keeps nothing.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from urllib.parse import urlencode, urljoin
from urllib.request import parse_http_list, parse_keqv_list

#: A header's name and value.
Header: TypeAlias = tuple[str, str]

_JSON: Final = "application/json"
_API: Final = re.compile(r"https?://.*/api/v[0-9]+/")


@dataclass(frozen=True, slots=True)
class Digest:
    """HTTP Digest: the payload goes without credentials first, and again after the challenge."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What is posted before each payload to get the token that the payload carries."""

    url: str
    form: Sequence[tuple[str, str]] = field(repr=False)
    accept: str = "*/*"
    credentials: Header | None = field(default=None, repr=False)

    @property
    def body(self) -> bytes:
        return urlencode(self.form).encode()


#: A header is the same for each payload: `basic`, or an API key.
Login: TypeAlias = Header | Digest | TokenRequest


def basic(username: str, password: str) -> Header:
    """Return HTTP Basic credentials as requests encodes them: latin-1, else UTF-8 (§2)."""
    text = f"{username}:{password}"
    try:
        raw = text.encode("latin-1")
    except UnicodeEncodeError:
        raw = text.encode()
    return "Authorization", f"Basic {base64.b64encode(raw).decode()}"


def bearer(to: str, username: str, password: str) -> TokenRequest:
    """Return HQ's Bearer Token login: a password grant to `token` beside the address's API.

    HQ does so over https only; here http is right too, for an ingress on this machine.
    Raises ValueError if the address `to` has no part `/api/v<digits>/`.
    """
    place = _API.match(to)
    if place is None:
        raise ValueError(f"{to} has no part /api/v1/, without which HQ finds no token end point")
    form = (("grant_type", "password"), ("username", username), ("password", password))
    return TokenRequest(urljoin(place[0], "token"), form)


def client_credentials(
    token_url: str, client_id: str, secret: str, *, in_header: bool
) -> TokenRequest:
    """Return HQ's OAuth 2.0 Client Credentials; `in_header`: "pass credentials in header"."""
    grant = ("grant_type", "client_credentials")
    if in_header:
        return TokenRequest(token_url, (grant,), _JSON, basic(client_id, secret))
    form = (grant, ("client_id", client_id), ("client_secret", secret))
    return TokenRequest(token_url, form, _JSON)


def digest(
    login: Digest, challenge: str, *, method: str, target: str, cnonce: str
) -> Header | None:
    """Return the answer to a challenge as requests' HTTPDigestAuth gives it, None if there is none.

    `challenge` is all of `WWW-Authenticate`, joined by commas; of several the last one counts.
    `target` is path and query. The count is always 1: a payload has a challenge of its own.
    """
    if "digest" not in challenge.lower():
        return None
    text = re.sub("digest ", "", challenge, count=1, flags=re.IGNORECASE)
    asked = parse_keqv_list([item for item in parse_http_list(text) if item.partition("=")[2]])
    name = asked.get("algorithm", "MD5")
    hashed = _HASHES.get(name.upper())
    if hashed is None or not {"realm", "nonce"} <= asked.keys() or asked.get("qop") != "auth":
        return None
    realm, nonce = asked["realm"], asked["nonce"]
    ha1 = hashed(f"{login.username}:{realm}:{login.password}")
    ha2 = hashed(f"{method}:{target}")
    response = hashed(f"{ha1}:{nonce}:00000001:{cnonce}:auth:{ha2}")
    return "Authorization", (
        f'Digest username="{login.username}", realm="{realm}", nonce="{nonce}", uri="{target}", '
        f'response="{response}", algorithm="{name}", qop="auth", nc=00000001, cnonce="{cnonce}"'
    )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_HASHES: Final[Mapping[str, Callable[[str], str]]] = {"MD5": _md5, "SHA-256": _sha256}
