"""Sends one payload as `requests` does for CommCare HQ: log in, post, go where redirects lead."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urljoin, urlsplit

import aiohttp
import orjson

from casewire.hq import Request, redirected, wire_headers
from casewire.hq_logins import Digest, Header, Login, TokenRequest, digest

_MOST_REDIRECTS: Final = 30
_FORM: Final = "application/x-www-form-urlencoded"
_SHOWN_BYTES: Final = 2000


@dataclass(frozen=True, slots=True)
class Sent:
    """One request on the wire."""

    method: str
    url: str
    headers: Sequence[Header]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `text` is its beginning; `target` the path and query that were asked for."""

    status: int
    text: str
    location: str | None
    challenge: str
    target: str


async def post(
    client: aiohttp.ClientSession, url: str, request: Request, login: Login | None
) -> Reply:
    """Log in, send, and follow redirects.

    A redirect to another origin goes without credentials. Raises ValueError after 30 redirects or
    without a token, and what aiohttp raises.
    """
    credentials = await _credentials(client, login)
    headers = wire_headers(request, credentials)
    sent = Sent(request.method, url, headers, request.body)
    for _ in range(_MOST_REDIRECTS + 1):
        reply = await _exchange(client, sent, login)
        if reply.status not in (301, 302, 303, 307, 308) or reply.location is None:
            return reply
        sent = _redirected(sent, reply.status, urljoin(sent.url, reply.location), credentials)
    raise ValueError(f"exceeded {_MOST_REDIRECTS} redirects")


async def try_connection(client: aiohttp.ClientSession, url: str, login: Login | None) -> Reply:
    """Get the address with the login and nothing else (protocol.md §4); raise as `post` does."""
    credentials = await _credentials(client, login)
    headers = [("Accept", "application/json"), *([credentials] if credentials else [])]
    return await _exchange(client, Sent("GET", url, headers), login)


def _redirected(sent: Sent, status: int, url: str, credentials: Header | None) -> Sent:
    headers, body = sent.headers, sent.body
    if status not in (307, 308):
        body = b""
        headers = [header for header in headers if header[0] != "Content-Type"]
    if urlsplit(url)[:2] != urlsplit(sent.url)[:2]:
        headers = [header for header in headers if header != credentials]
    return Sent(redirected(sent.method, status), url, headers, body)


async def _credentials(client: aiohttp.ClientSession, login: Login | None) -> Header | None:
    """Return what the first request carries; a token is fetched for it."""
    match login:
        case TokenRequest():
            return "Authorization", f"Bearer {await _token(client, login)}"
        case Digest():
            return None
        case _:
            return login


async def _token(client: aiohttp.ClientSession, login: TokenRequest) -> str:
    asking = Request(kind="token", body=login.body, content_type=_FORM)
    headers = wire_headers(asking, login.credentials, login.accept)
    async with client.post(login.url, data=login.body, headers=headers) as response:
        content = await response.read()
    try:
        return str(orjson.loads(content)["access_token"])
    except (ValueError, KeyError, TypeError) as error:
        said = content[:_SHOWN_BYTES].decode(errors="replace").strip()
        raise ValueError(f"no token from {login.url}: HTTP {response.status} {said}") from error


async def _exchange(client: aiohttp.ClientSession, sent: Sent, login: Login | None) -> Reply:
    """Send; if the answer is a challenge that the login can answer, send again with that."""
    reply = await _send(client, sent)
    if not isinstance(login, Digest) or not 400 <= reply.status < 500:
        return reply
    proof = digest(
        login,
        reply.challenge,
        method=sent.method,
        target=reply.target,
        cnonce=secrets.token_hex(8),
    )
    return await _send(client, replace(sent, headers=[*sent.headers, proof])) if proof else reply


async def _send(client: aiohttp.ClientSession, sent: Sent) -> Reply:
    async with client.request(
        sent.method,
        sent.url,
        data=sent.body or None,
        headers=sent.headers,
        skip_auto_headers=("Content-Type",),
        allow_redirects=False,
    ) as response:
        return Reply(
            response.status,
            (await response.content.read(_SHOWN_BYTES)).decode(errors="replace"),
            response.headers.get("Location"),
            ", ".join(response.headers.getall("WWW-Authenticate", ())),
            response.url.raw_path_qs,
        )
