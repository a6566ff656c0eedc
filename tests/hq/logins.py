"""How HQ proves who it is, with the libraries that it uses (protocol.md §2, HQ's motech/auth.py).

Each login makes a new session for each payload, as HQ does; nothing is kept between payloads.
Token requests verify certificates against the system's, or those of REQUESTS_CA_BUNDLE.
"""

import re
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urljoin

import requests
from oauthlib.oauth2 import BackendApplicationClient, LegacyApplicationClient
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth
from requests_oauthlib import OAuth2Session

#: Connect and read, in seconds (protocol.md §3.4).
TIMEOUTS = (60, 300)


class Login(Protocol):
    def session(self) -> requests.Session: ...


def _session(auth: AuthBase | None) -> requests.Session:
    session = requests.Session()
    session.auth = auth
    return session


@dataclass(frozen=True, slots=True)
class Anyone:
    def session(self) -> requests.Session:
        return _session(None)


@dataclass(frozen=True, slots=True)
class Basic:
    username: str
    password: str

    def session(self) -> requests.Session:
        return _session(HTTPBasicAuth(self.username, self.password))


@dataclass(frozen=True, slots=True)
class Digest:
    username: str
    password: str

    def session(self) -> requests.Session:
        return _session(HTTPDigestAuth(self.username, self.password))


@dataclass(frozen=True, slots=True)
class ApiKey:
    """HQ refuses to send one over plain HTTP unless it runs in DEBUG; this one does not refuse."""

    value: str
    header: str = "Authorization"

    def session(self) -> requests.Session:
        return _session(_Verbatim(self.header, self.value))


@dataclass(frozen=True, slots=True)
class Bearer:
    """`https_only` is HQ's rule; without it the token is fetched over plain HTTP too."""

    username: str
    password: str
    https_only: bool = True

    def session(self) -> requests.Session:
        return _session(_FreshToken(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredentials:
    client_id: str
    client_secret: str
    token_url: str
    in_header: bool
    scope: str | None = None

    def session(self) -> requests.Session:
        fetching = OAuth2Session(client=BackendApplicationClient(self.client_id, scope=self.scope))
        token = fetching.fetch_token(
            self.token_url,
            auth=HTTPBasicAuth(self.client_id, self.client_secret) if self.in_header else None,
            client_secret=None if self.in_header else self.client_secret,
            include_client_id=None if self.in_header else True,
        )
        return OAuth2Session(self.client_id, token=token)


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordGrant:
    username: str
    password: str
    client_id: str
    client_secret: str
    token_url: str
    in_header: bool

    def session(self) -> requests.Session:
        fetching = OAuth2Session(client=LegacyApplicationClient(self.client_id))
        token = fetching.fetch_token(
            self.token_url,
            username=self.username,
            password=self.password,
            auth=HTTPBasicAuth(self.client_id, self.client_secret) if self.in_header else None,
            client_secret=None if self.in_header else self.client_secret,
            include_client_id=None if self.in_header else True,
        )
        return OAuth2Session(self.client_id, token=token)


class _Verbatim(AuthBase):
    def __init__(self, header: str, value: str) -> None:
        self._header = header
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers[self._header] = self._value
        return request


class _FreshToken(AuthBase):
    """Fetches a token before each payload from `token` beside the address's `…/api/v<digits>/`."""

    def __init__(self, login: Bearer) -> None:
        self._login = login

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        scheme = "https" if self._login.https_only else "https?"
        place = re.match(rf"{scheme}://.*/api/v[0-9]+/", request.url or "")
        if place is None:
            raise requests.RequestException("the address has no part for Bearer Token")
        grant = {
            "grant_type": "password",
            "username": self._login.username,
            "password": self._login.password,
        }
        answer = requests.post(urljoin(place[0], "token"), data=grant, timeout=TIMEOUTS)
        try:
            token = answer.json()["access_token"]
        except (ValueError, KeyError, TypeError) as error:
            raise requests.RequestException("no access token in the answer") from error
        request.headers["Authorization"] = f"Bearer {token}"
        return request
