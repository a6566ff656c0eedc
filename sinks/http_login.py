"""How a sink logs in at an HTTP target: headers that stay, or OAuth 2's token."""

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import aiohttp
import orjson

from schemas.errors import TargetError, TransientError
from sinks.http_client import asked
from sinks.http_requests import Answer, judged
from sinks.http_settings import HttpSettings, origin

#: A token is used for this part of the time that it is said to live.
_USED_PART: Final = 0.9


def fixed_headers(settings: HttpSettings) -> Mapping[str, str]:
    """Return the headers that each request has, by lower-case name, credentials among them."""
    headers = dict(settings.headers)
    if settings.auth == "basic":
        headers["authorization"] = _basic(settings)
    if settings.auth == "header":
        headers[settings.auth_header] = settings.secret
    return {name.lower(): text for name, text in headers.items()}


class Tokens:
    """OAuth 2's tokens by client credentials (RFC 6749 §4.4), one at a time.

    `clock` returns seconds. A server that does not say how long a token lives is asked again when
    the target refuses it.
    """

    def __init__(self, settings: HttpSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token = ""
        self._until = 0.0

    async def get(self, session: aiohttp.ClientSession) -> str:
        """Return a token that is good. Raises TransientError or TargetError."""
        async with self._lock:
            if not self._token or self._clock() >= self._until:
                asked_at = self._clock()
                self._token, seconds = await self._fetched(session)
                self._until = asked_at + _USED_PART * seconds
            return self._token

    def refused(self, token: str) -> None:
        """Forget a token that the target did not take."""
        if token == self._token:
            self._token = ""

    async def _fetched(self, session: aiohttp.ClientSession) -> tuple[str, float]:
        """Return a new token and the seconds that it lives."""
        settings = self._settings
        place = origin(settings.token_url)
        form = {"grant_type": "client_credentials"}
        if settings.scope:
            form["scope"] = settings.scope
        headers = {"Accept": "application/json"}
        if settings.auth == "oauth2":
            headers["Authorization"] = _basic(settings)
        else:
            form |= {"client_id": settings.user, "client_secret": settings.secret}
        request = session.post(
            settings.token_url, data=form, headers=headers, allow_redirects=False
        )
        answer = await asked(request, place)
        result = judged(answer, place, datetime.now(UTC))
        if isinstance(result, TransientError):
            raise result
        if result != "written":
            raise TargetError(
                f"{place} gives no token, it answers {answer.status}: "
                "check user, secret, scope and token_url"
            )
        return _token_of(answer, place)


def _token_of(answer: Answer, place: str) -> tuple[str, float]:
    try:
        said = orjson.loads(answer.words)
        token, seconds = said["access_token"], float(said.get("expires_in") or "inf")
    except (AttributeError, KeyError, TypeError, ValueError):
        token, seconds = "", 0.0
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
        raise TargetError(f"{place} answers without an access_token: check token_url")
    return token, seconds


def _basic(settings: HttpSettings) -> str:
    return f"Basic {b64encode(f'{settings.user}:{settings.secret}'.encode()).decode()}"
