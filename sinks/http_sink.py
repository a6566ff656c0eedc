"""The connector `http`: a request a message, several at once, in order for each case and form."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from schemas.errors import TargetError, TransientError
from sinks.base import Message, Result, Sink
from sinks.http_client import asked, new_session, reached
from sinks.http_login import Tokens, fixed_headers
from sinks.http_requests import Answer, body_of, headers_of, judged
from sinks.http_settings import HttpSettings, origin

_UNAUTHORIZED: Final = 401


def make(settings: HttpSettings, data_dir: Path) -> Sink:
    return HttpSink(settings)


class HttpSink:
    """Sends each message to one address.

    When the target cannot take one, or only the operator can help, no more are begun: what is in
    flight ends, and the rest is for later. A target has no guard that could be asked: what a worker
    sends after it has lost a partition may come after what is newer.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._place = origin(settings.url)
        self._url = URL(settings.url)
        self._headers = fixed_headers(settings)
        self._tokens = Tokens(settings) if settings.auth.startswith("oauth2") else None
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Try the address and the login. Raises TransientError or TargetError."""
        await reached(self._settings.url, self._place)
        if self._tokens is not None:
            await self._tokens.get(self._client())

    async def write(self, messages: Sequence[Message]) -> Sequence[Result]:
        results: dict[int, Result] = {}
        stopped: list[TransientError | TargetError] = []
        turns = _by_key(messages)

        async def send_in_turn() -> None:
            for places in turns:
                for place in places:
                    if stopped:
                        return
                    try:
                        results[place] = await self._sent(messages[place])
                    except (TransientError, TargetError) as error:
                        stopped.append(error)

        await asyncio.gather(*(send_in_turn() for _ in range(self._settings.concurrency)))
        later = _later(stopped)
        return [results.get(place, later) for place in range(len(messages))]

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            settings = self._settings
            self._session = new_session(settings.concurrency, settings.timeout_seconds)
        return self._session

    async def _sent(self, message: Message) -> Result:
        """Return how a message ended. Raises TransientError or TargetError."""
        answer, token = await self._answered(message)
        if answer.status == _UNAUTHORIZED and self._tokens is not None:
            self._tokens.refused(token)
            answer, _ = await self._answered(message)
        result = judged(answer, self._place, datetime.now(UTC))
        if isinstance(result, TransientError):
            raise result
        return result

    async def _answered(self, message: Message) -> tuple[Answer, str]:
        """Return the answer, and the token that the request had."""
        session = self._client()
        headers = {**headers_of(message), **self._headers}
        token = ""
        if self._tokens is not None:
            token = await self._tokens.get(session)
            headers["authorization"] = f"Bearer {token}"
        request = session.request(
            self._settings.method,
            self._address(message),
            data=body_of(message),
            headers=headers,
            allow_redirects=False,
        )
        return await asked(request, self._place), token

    def _address(self, message: Message) -> URL:
        app_id = message.value.get("app_id") if message.kind == "form" else None
        if not self._settings.add_app_id or not isinstance(app_id, str):
            return self._url
        return self._url.extend_query(app_id=app_id)


def _later(stopped: Sequence[TransientError | TargetError]) -> TransientError:
    """Return how those end that were not sent. Raises TargetError if only the operator can help."""
    waits = []
    for error in stopped:
        if isinstance(error, TargetError):
            raise error
        waits.append(error)
    return max(waits, key=lambda error: error.retry_after, default=TransientError("not sent"))


def _by_key(messages: Sequence[Message]) -> Iterator[Sequence[int]]:
    """Return the places of each case's and form's messages, which go one after the other."""
    places: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for place, message in enumerate(messages):
        places[message.kind, message.key].append(place)
    return iter(places.values())
