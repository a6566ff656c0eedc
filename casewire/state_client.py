"""Asks a running streams worker for states (docs/state-api.md)."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import aiohttp
import msgspec
import orjson

from casewire.config import Config
from casewire.health import running
from casewire.state_api import read_token
from schemas.case import CaseState
from schemas.errors import ConfigError, QueryError, UnavailableError
from schemas.values import Json

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=3)
_PAGE: Final = 1000


class Held(msgspec.Struct, frozen=True):
    """An answer with a state; `captured_at` is when the event came that made it."""

    at: str | None
    captured_at: str
    state: Json

    def case(self) -> CaseState:
        return CaseState.from_object(self.state)


class Differing(msgspec.Struct, frozen=True):
    """A name whose value an event changed."""

    name: str
    old: Json
    new: Json


class Happening(msgspec.Struct, frozen=True):
    """An event of a case's story. Without `outcome` or `differences` nobody knows them any more."""

    id: str
    captured_id: str
    captured_at: str
    kind: str
    outcome: str | None
    form_ids: Sequence[str]
    version: int | None
    doubtful: bool | None
    differences: Sequence[Differing] | None


class Story(msgspec.Struct, frozen=True):
    """A case's story, oldest first. `complete`: its beginning is still kept."""

    domain: str
    case_id: str
    complete: bool
    events: Sequence[Happening]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class StateClient:
    """Asks whichever worker answers.

    Methods raise QueryError for what has no answer, UnavailableError if no worker gives one now,
    and ConfigError if none accepts our token.
    """

    session: aiohttp.ClientSession
    addresses: Sequence[str]
    token_file: Path

    async def case(self, domain: str, case_id: str, at: str = "") -> Held:
        """Return a case's latest state, or that `at` a moment."""
        answer = await self._get("cases", domain, case_id, **({"at": at} if at else {}))
        return msgspec.json.decode(answer, type=Held)

    async def form(self, domain: str, form_id: str) -> Held:
        """Return the latest version of a form."""
        return msgspec.json.decode(await self._get("forms", domain, form_id), type=Held)

    async def story(self, domain: str, case_id: str) -> Story:
        """Return a case's story, whole."""
        pages: list[Story] = []
        more: dict[str, str] = {}
        while not pages or pages[-1].next is not None:
            answer = await self._get("cases", domain, case_id, "history", limit=str(_PAGE), **more)
            pages.append(msgspec.json.decode(answer, type=Story))
            more = {"after": pages[-1].next or ""}
        events = [event for page in pages for event in page.events]
        return msgspec.structs.replace(pages[-1], events=events)

    async def _get(self, *path: str, **query: str) -> bytes:
        target = "/".join(quote(part, safe="") for part in path)
        for address in self.addresses:
            url = f"http://{address}/api/v1/{target}"
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self.session.get(url, params=query) as answer:
                    return self._checked(answer.status, await answer.read())
        raise UnavailableError(
            f"no streams worker answers at {', '.join(self.addresses)}; "
            "start one with casewire up or casewire streams"
        )

    def _checked(self, status: int, body: bytes) -> bytes:
        if status == 200:
            return body
        if status == 401:
            raise ConfigError(
                f"the streams worker refuses the token in {self.token_file}; "
                "start it anew, or set [streams] token_file to its file"
            )
        text = orjson.loads(body)["error"]
        if status == 503:
            raise UnavailableError(text)
        raise QueryError(status, text)


@contextlib.asynccontextmanager
async def state_client(config: Config) -> AsyncIterator[StateClient]:
    """Give a client of the workers on this machine, else of the configured address.

    Raises ConfigError if there is no token.
    """
    told = [each.state_api for each in running(config.run_dir) if each.state_api]
    headers = {"authorization": f"Bearer {read_token(config)}"}
    async with aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT) as session:
        yield StateClient(session, told or [config.streams.bind], config.state_token_file)
