"""Tokens for SASL's OAUTHBEARER, by OAuth 2 client credentials (RFC 6749 §4.4)."""

import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import orjson
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError

#: A token is used for this part of the time that it is said to live.
_USED_PART: Final = 0.8
#: How long one is used whose server does not say how long it lives.
_UNSAID_SECONDS: Final = 60.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)


class TokenError(KafkaError):  # type: ignore[misc, no-any-unimported]
    """There is no token now; to Kafka's clients, a broker that cannot be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth:
    """Who asks where for a token."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""

    @property
    def place(self) -> str:
        """Whom to name in messages: the address without its path."""
        parts = urlsplit(self.token_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class Tokens(AbstractTokenProvider):  # type: ignore[misc, no-any-unimported]
    """Gives each new connection a token that is good; `clock` returns seconds.

    Clients of several threads and event loops share one. Those that find no good token at the same
    time each fetch one: that is harmless, and nobody waits for another loop.
    """

    def __init__(
        self, oauth: OAuth, context: ssl.SSLContext, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._oauth = oauth
        self._context = context
        self._clock = clock
        self._token, self._until = "", 0.0

    async def token(self) -> str:
        """Return a token. Raises TokenError."""
        token, until = self._token, self._until
        if token and self._clock() < until:
            return token
        asked_at = self._clock()
        try:
            status, said = await self._answer()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise TokenError(
                f"{self._oauth.place} gives no token ({type(error).__name__}): "
                "check oauth_token_url"
            ) from error
        token, seconds = _token_of(self._oauth.place, status, said)
        self._token, self._until = token, asked_at + _USED_PART * seconds
        return token

    async def _answer(self) -> tuple[int, bytes]:
        oauth = self._oauth
        form = {"grant_type": "client_credentials"}
        if oauth.scope:
            form["scope"] = oauth.scope
        login = b64encode(f"{oauth.client_id}:{oauth.client_secret}".encode()).decode()
        headers = {"Accept": "application/json", "Authorization": f"Basic {login}"}
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.post(
                oauth.token_url,
                data=form,
                headers=headers,
                ssl=self._context,
                allow_redirects=False,
            ) as answer,
        ):
            return answer.status, await answer.read()


def _token_of(place: str, status: int, said: bytes) -> tuple[str, float]:
    """Return a token and the seconds that it lives. Raises TokenError."""
    if status != 200:
        raise TokenError(
            f"{place} gives no token, it answers {status}: check oauth_client_id, "
            "oauth_client_secret_file and oauth_scope"
        )
    try:
        values = orjson.loads(said)
        token, seconds = values["access_token"], float(values.get("expires_in") or _UNSAID_SECONDS)
    except (AttributeError, KeyError, TypeError, ValueError):
        token, seconds = "", 0.0
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
        raise TokenError(f"{place} answers without an access_token: check oauth_token_url")
    return token, seconds
