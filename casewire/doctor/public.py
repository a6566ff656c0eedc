"""`casewire doctor --public URL`: what CommCare HQ needs of an address, looked at from outside.

No event is stored: what is posted has credentials that nobody has, and only where the address asks
for some.
"""

import asyncio
import base64
import ipaddress
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp

from ingress.answers import PROBE, SEEN, STORING
from ingress.request import PREFIX, parse_path

#: Connection Settings of HQ take no longer one (protocol.md §1.0).
_LONGEST_URL: Final = 255
#: The default of [ingress] max_body_bytes.
_LARGEST_BODY: Final = 50 * 1024 * 1024
_SECONDS: Final = 15
#: A certificate of 90 days is renewed when 30 are left: who has less than this has forgotten it.
_LEAST_SECONDS: Final = 14 * 86_400
_LEAST_SHARE: Final = 0.2
_REALM: Final = 'realm="casewire"'
_WORKS: Final = "Casewire takes what is forwarded for"
_LATER: Final = "Not stored, send it again later: "
_TOKEN_PATHS: Final = ("/api/v1/token", "/oauth/token")

#: OpenSSL's X509_V_ERR_ numbers.
_VERIFY: Final[Mapping[int, str]] = {
    9: "is not valid yet; correct the clock of who made it, or wait",
    10: "has expired; renew it",
    18: "is signed by itself; get one of a public authority, as Caddy does by itself",
    62: "is for another name; get one for this",
}
_CHAIN: Final = (
    "comes with no complete chain, or of an authority that is not public; give the server the "
    "whole chain (fullchain.pem)"
)
_UNDERSCORES: Final = (
    "a header with an underscore in its name is dropped on the way; let the proxy pass it "
    "(nginx: underscores_in_headers on)"
)
_TOKENS: Final = (
    "HQ's Bearer and OAuth 2 connections get their tokens there, so let the proxy pass it"
)
_PLAIN: Final = (
    "who enters http in HQ by mistake loses each event, so have it answer 503 (docs/deploy)"
)


@dataclass(frozen=True, slots=True)
class Site:
    """An https address, taken apart."""

    url: str
    host: str
    port: int
    path: str
    domain: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raise ValueError that says why HQ or Casewire cannot take it, and what to do."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError(f"{url} is no https address; give https://YOUR-HOST{PREFIX}/DOMAIN")
        if len(url) > _LONGEST_URL:
            raise ValueError(f"HQ takes no address of more than {_LONGEST_URL} characters")
        if parts.username is not None:
            raise ValueError(
                "has a user name in it; enter that in HQ's Connection Settings instead"
            )
        place = parse_path(parts.path)
        if place is None:
            wanted = f"{PREFIX}/DOMAIN"
            raise ValueError(f"its path is {parts.path or '/'}; forward to {wanted}, in lower case")
        return cls(url, parts.hostname, parts.port or 443, parts.path, place[0])

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def is_ours(self) -> bool:
        """Whether the ingress gave it, and nothing before it."""
        asks = self.status == 401 and _REALM in self.headers.get("www-authenticate", "")
        return asks or (self.status == 200 and self.text.startswith(_WORKS))


async def look(url: str) -> AsyncIterator[tuple[str, str]]:
    """Yield area and sentence of each problem. What needs the thing that is wrong is left out."""
    try:
        site = Site.parse(url)
    except ValueError as error:
        yield "address", str(error)
        return
    try:
        found = await asyncio.get_running_loop().getaddrinfo(site.host, site.port)
    except OSError:
        yield "address", f"{site.host} does not resolve; add an A or AAAA record to its DNS zone"
        return
    for problem in private_problems(site.host, {str(each[4][0]) for each in found}):
        yield "address", problem
    context = ssl.create_default_context()
    async for problem in _certificate_problems(site, context):
        yield "certificate", problem
        return
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context),
        timeout=aiohttp.ClientTimeout(total=_SECONDS),
    ) as session:
        try:
            async for found_there in _answer_problems(site, context, session):
                yield found_there
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            yield "answer", f"{url} breaks off ({type(error).__name__}); see the log of its proxy"


def private_problems(host: str, addresses: set[str]) -> Iterator[str]:
    """Name the addresses that HQ does not connect to (protocol.md §1.0)."""
    for address in sorted(addresses):
        number = ipaddress.ip_address(address.partition("%")[0])
        if not number.is_global or number.is_multicast:
            yield (
                f"{host} resolves to {address}, and HQ connects to public addresses only; "
                "correct its DNS record, or forward a port of a public machine to this one"
            )


async def _certificate_problems(site: Site, context: ssl.SSLContext) -> AsyncIterator[str]:
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(site.host, site.port, ssl=context)
    except ssl.SSLCertVerificationError as error:
        yield f"of {site.host} {_VERIFY.get(error.verify_code, _CHAIN)} ({error.verify_message})"
        return
    except ssl.SSLError as error:
        yield f"{site.host}:{site.port} does not speak TLS ({error.reason}); serve https there"
        return
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        yield f"{site.host}:{site.port} cannot be reached ({reason}); open it in the firewall"
        return
    certificate = writer.get_extra_info("peercert")
    writer.close()
    for problem in age_problems(certificate["notBefore"], certificate["notAfter"], time.time()):
        yield problem


def age_problems(not_before: str, not_after: str, now: float) -> Iterator[str]:
    """Judge how long a certificate is valid still; times as Python's `ssl` gives them."""
    begin, end = ssl.cert_time_to_seconds(not_before), ssl.cert_time_to_seconds(not_after)
    left = end - now
    if left < min(_LEAST_SECONDS, _LEAST_SHARE * (end - begin)):
        yield f"ends in {left / 3600:.0f} hours and was not renewed; see to its renewal"


async def _answer_problems(
    site: Site, context: ssl.SSLContext, session: aiohttp.ClientSession
) -> AsyncIterator[tuple[str, str]]:
    # As HQ's "Test connection" (protocol.md §4), and one header that a proxy may drop.
    asked = {"Accept": "application/json", PROBE: "1"}
    heard = await _hear(session, "GET", site.url, asked)
    for problem in connection_problems(heard):
        yield "answer", problem
    if heard.is_ours and SEEN not in heard.headers:
        yield "answer", _UNDERSCORES
    if heard.is_ours and heard.status == 401:
        async for found in _wrong_credentials(site, context, session):
            yield found
    async for found in _neighbours(site, session):
        yield found


def connection_problems(heard: Heard) -> Iterator[str]:
    """Judge the answer to a GET without credentials."""
    if heard.is_ours and heard.status == 401:
        return
    if heard.is_ours:
        yield (
            "it takes events from anybody; give the project space a credential by casewire auth add"
        )
    elif heard.status in range(300, 400):
        yield (
            f"GET is redirected to {heard.headers.get('location', 'nowhere')}; remove that: HQ "
            "follows a redirect without the body, and the event is lost"
        )
    elif heard.status == 503 and heard.text.startswith(_LATER):
        yield f"it says that {heard.text.removeprefix(_LATER).strip()}"
    elif heard.status == 404:
        yield f"GET is answered 404, which loses events; let the proxy pass {PREFIX}/"
    elif heard.status in (200, 401, 403):
        yield (
            f"GET is answered {heard.status} by something else than Casewire; let no proxy ask for "
            "credentials of its own, or show a page of its own"
        )
    else:
        yield f"GET is answered {heard.status}; see that the ingress runs, and the proxy's log"


async def _wrong_credentials(
    site: Site, context: ssl.SSLContext, session: aiohttp.ClientSession
) -> AsyncIterator[tuple[str, str]]:
    nobody = base64.b64encode(f"casewire-doctor:{secrets.token_hex(16)}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {nobody}"}
    for method in STORING:
        heard = await _hear(session, method, site.url, headers, b"{}")
        if not heard.is_ours:
            yield "credentials", refusal_problem(method, heard)
    status, text = await _announced(site, context, headers)
    if status == 413:
        yield "size", size_problem(text)


def refusal_problem(method: str, heard: Heard) -> str:
    """Return what is wrong where a request with wrong credentials is not refused by Casewire."""
    if heard.status == 503 and heard.text.startswith(_LATER):
        return f"{method} with wrong credentials is not judged: {heard.text.strip()}"
    return (
        f"{method} with wrong credentials is answered {heard.status} instead of Casewire's 401; "
        f"let the proxy pass {method} untouched"
    )


def size_problem(text: str) -> str:
    """Return whose limit a large body is above; Casewire tells its own in the answer."""
    who = "[ingress] max_body_bytes" if text.startswith("The body is larger") else "the proxy"
    return (
        f"a body of {_LARGEST_BODY // 1024**2} MiB is refused (413), and HQ does not send it "
        f"again; raise the limit of {who}"
    )


async def _announced(
    site: Site, context: ssl.SSLContext, headers: Mapping[str, str]
) -> tuple[int, str]:
    """Announce a large body and wait for the answer without sending it (RFC 9110 §10.1.1).

    Returns status (100: it is waited for) and text. A proxy that judges a body only when it comes
    cannot be seen through.
    """
    lines = [
        f"POST {site.path} HTTP/1.1",
        f"Host: {site.origin.removeprefix('https://')}",
        f"Content-Length: {_LARGEST_BODY}",
        "Expect: 100-continue",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    reader, writer = await asyncio.open_connection(site.host, site.port, ssl=context)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            return status, (await reader.read(200)).decode(errors="replace") if status > 100 else ""
    except (asyncio.IncompleteReadError, ValueError, TimeoutError):
        return 100, ""
    finally:
        writer.close()


async def _neighbours(site: Site, session: aiohttp.ClientSession) -> AsyncIterator[tuple[str, str]]:
    for path in _TOKEN_PATHS:
        form = b"grant_type=client_credentials&client_id=casewire-doctor&client_secret=x"
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        heard = await _hear(session, "POST", site.origin + path, kind, form)
        if heard.status == 404 or heard.status in range(300, 400):
            yield "tokens", f"POST {path} is answered {heard.status}; {_TOKENS}"
    heard = await _hear(session, "GET", f"{site.origin}/metrics", {})
    if heard.status == 200 and "casewire_" in heard.text:
        yield "metrics", "everybody can read /metrics; let the proxy pass /api/v1/ and /oauth/ only"
    if site.port == 443:
        async for problem in plain_problems(f"http://{site.host}{site.path}", session):
            yield problem


async def plain_problems(
    plain: str, session: aiohttp.ClientSession
) -> AsyncIterator[tuple[str, str]]:
    """Yield what is wrong with the http address beside; that nothing answers there is right."""
    try:
        heard = await _hear(session, "GET", plain, {})
    except (aiohttp.ClientError, OSError, TimeoutError):
        return
    if heard.status in range(300, 400):
        yield "answer", f"{plain} is redirected; {_PLAIN}"


async def _hear(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> Heard:
    async with session.request(
        method, url, headers=headers, data=body, allow_redirects=False
    ) as answer:
        text = (await answer.content.read(65_536)).decode(errors="replace")
        challenges = ", ".join(answer.headers.getall("WWW-Authenticate", []))
        told = {name.lower(): value for name, value in answer.headers.items()}
        return Heard(answer.status, told | {"www-authenticate": challenges}, text)
