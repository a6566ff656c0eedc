"""A request by aiohttp's client, and its failures in our words."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Final

import aiohttp
from yarl import URL

from schemas.errors import TargetError, TransientError
from sinks.http_requests import Answer

CONNECT_SECONDS: Final = 10
_KEPT_BYTES: Final = 64 * 1024
#: A longer answer is not read to its end: to connect anew is cheaper.
_READ_BYTES: Final = 1024 * 1024


def new_session(concurrency: int, seconds: float) -> aiohttp.ClientSession:
    """Return a client that keeps no cookies. `seconds`: how long a request may take in all."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS),
        headers={"User-Agent": "casewire"},
    )


async def asked(request: AbstractAsyncContextManager[aiohttp.ClientResponse], place: str) -> Answer:
    """Send a request and return the answer. Raises TransientError or TargetError if none comes."""
    with _translated_errors(place):
        async with request as response:
            words = await _beginning(response)
            return Answer(response.status, response.headers.get("Retry-After", ""), words)


async def reached(url: str, place: str) -> None:
    """Connect to an address, and leave. Raises TransientError or TargetError."""
    address = URL(url)
    with _translated_errors(place):
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(
                address.host, address.port, ssl=address.scheme == "https" or None
            )
            writer.transport.abort()  # nothing was said: to part in order would take its time


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Return the beginning of the body. What the status says holds also if the rest is lost."""
    found = bytearray()
    read = 0
    with suppress(aiohttp.ClientError, TimeoutError):
        async for chunk in response.content.iter_any():
            read += len(chunk)
            found += chunk[: _KEPT_BYTES - len(found)]
            if read > _READ_BYTES:
                break
    return bytes(found)


@contextmanager
def _translated_errors(place: str) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError) as error:
        raise TargetError(
            f"the certificate of {place} is not valid: have it renewed, or trust its issuer "
            "by SSL_CERT_FILE"
        ) from error
    except TimeoutError as error:
        raise TransientError(f"{place} does not answer in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise TransientError(f"{place} cannot be reached ({type(error).__name__})") from error
