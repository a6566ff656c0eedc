"""The state API: latest states, a case's past and its story, by HTTP (docs/state-api.md).

Any worker may be asked. The one that holds the key's partition answers; every other one forwards
the question to it, once.
"""

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

import aiohttp
import orjson
from aiokafka.errors import KafkaError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from schemas.errors import QueryError
from schemas.partitioner import partition_of
from schemas.times import from_rfc3339
from schemas.values import Json
from streams.api_description import DOCUMENT, PATH
from streams.past.answers import Page, Past
from streams.past.story import Step
from streams.records import time_of_id

FORWARDED: Final = "casewire-forwarded"
DEFAULT_LIMIT: Final = 100
LARGEST_LIMIT: Final = 1000
_FORWARD_SECONDS: Final = aiohttp.ClientTimeout(total=5, connect=1)
_RETRY_AFTER: Final = {"retry-after": "1"}
_LIMIT: Final = re.compile(r"[0-9]{1,4}", re.ASCII)

StateKind: TypeAlias = Literal["case", "form"]
Local: TypeAlias = Callable[[], Awaitable[bytes]]


class Holdings(Protocol):
    """What this worker knows of partitions and holds of states."""

    def partitions(self) -> frozenset[int]:
        """Return those whose states this worker holds now, as the changelogs have them."""
        ...

    def owner(self, partition: int) -> str | None:
        """Return the state API (host:port) of who holds a partition; None if nobody says."""
        ...

    def published(self, kind: StateKind, key: bytes) -> bytes | None:
        """Return the state that is published for a key, None if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where this worker stands: its state API's address, and how many partitions there are."""

    address: str
    partitions: int


class StateApi:
    """The endpoints. Close `forwards` in the end."""

    def __init__(self, place: Place, holdings: Holdings, past: Past) -> None:
        self._place = place
        self._holdings = holdings
        self._past = past
        self.forwards = aiohttp.ClientSession(timeout=_FORWARD_SECONDS, auto_decompress=False)

    async def case(self, request: Request) -> Response:
        key, at = _key(request, "case_id"), _at(request)

        async def state() -> bytes:
            if at is None:
                return _answer(None, self._current("case", key))
            return _answer(at, await self._past.at(key, at))

        return await self._routed(request, key, state)

    async def history(self, request: Request) -> Response:
        key, limit = _key(request, "case_id"), _limit(request)
        after = request.query_params.get("after")

        async def story() -> bytes:
            page = await self._past.history(key, after, limit)
            return await asyncio.to_thread(lambda: orjson.dumps(_story(key, page)))

        return await self._routed(request, key, story)

    async def form(self, request: Request) -> Response:
        key = _key(request, "form_id")

        async def state() -> bytes:
            return _answer(None, self._current("form", key))

        return await self._routed(request, key, state)

    def _current(self, kind: StateKind, key: bytes) -> bytes:
        state = self._holdings.published(kind, key)
        if state is None:
            raise QueryError(404, f"this {kind} is not known")
        return state

    async def _routed(self, request: Request, key: bytes, local: Local) -> Response:
        partition = partition_of(key, self._place.partitions)
        if partition in self._holdings.partitions():
            return Response(await local(), media_type="application/json")
        owner = self._holdings.owner(partition)
        if owner in (None, self._place.address) or FORWARDED in request.headers:
            raise QueryError(503, "this case or form is just changing hands; ask again")
        headers = {FORWARDED: "1", "authorization": request.headers["authorization"]}
        url = f"http://{owner}{_target(request)}"
        try:
            async with self.forwards.get(url, headers=headers) as answer:
                kept = {
                    name: answer.headers[name] for name in _RETRY_AFTER if name in answer.headers
                }
                body = await answer.read()
                return Response(body, answer.status, kept, answer.headers["content-type"])
        except (aiohttp.ClientError, TimeoutError) as error:
            raise QueryError(503, "the worker that holds it does not answer; ask again") from error


def state_app(api: StateApi, token: str) -> Starlette:
    """Return the application. Every request must have `token` as its Bearer token."""
    routes = [
        Route("/api/v1/cases/{domain}/{case_id}", api.case),
        Route("/api/v1/cases/{domain}/{case_id}/history", api.history),
        Route("/api/v1/forms/{domain}/{form_id}", api.form),
        Route(PATH, _description),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Guard, token=token)],
        exception_handlers={
            QueryError: _refused,
            KafkaError: _without_broker,
            HTTPException: _not_routed,
        },
    )


class _Guard:
    """Lets nobody in without the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._wanted = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(given, self._wanted):
            await self._app(scope, receive, send)
        else:
            text = "give the token of the state API as Authorization: Bearer TOKEN"
            refusal = JSONResponse({"error": text}, 401, {"www-authenticate": "Bearer"})
            await refusal(scope, receive, send)


async def _description(request: Request) -> Response:
    return JSONResponse(DOCUMENT)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, QueryError)  # noqa: S101 - Starlette hands over no other
    said = {"error": str(error)}
    if error.oldest is not None:
        said["oldest"] = error.oldest
    return JSONResponse(said, error.status, _RETRY_AFTER if error.status == 503 else None)


async def _without_broker(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "no broker answers; ask again"}, 503, _RETRY_AFTER)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    return JSONResponse({"error": error.detail.lower()}, error.status_code, error.headers)


def _key(request: Request, name: str) -> bytes:
    return f"{request.path_params['domain']}/{request.path_params[name]}".encode()


def _target(request: Request) -> str:
    query = request.scope["query_string"].decode("latin-1")
    path = request.scope["raw_path"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _at(request: Request) -> str | None:
    text = request.query_params.get("at")
    if text is None:
        return None
    moment = from_rfc3339(text)
    if moment is None:
        raise QueryError(
            400,
            "at: write a time of RFC 3339 with its zone, such as 2026-11-22T10:00:00Z (a + is %2B)",
        )
    return moment


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not _LIMIT.fullmatch(text) or not 1 <= int(text) <= LARGEST_LIMIT:
        raise QueryError(400, f"limit: write a number from 1 to {LARGEST_LIMIT}")
    return int(text)


def _answer(at: str | None, state: bytes) -> bytes:
    """Return the answer with a state: the very bytes that were published."""
    captured_id = orjson.loads(state)["captured_id"]
    head = orjson.dumps({"at": at, "captured_at": time_of_id(captured_id)})
    return head[:-1] + b',"state":' + state + b"}"


def _story(key: bytes, page: Page) -> Mapping[str, Json]:
    domain, _, case_id = key.decode().partition("/")
    return {
        "domain": domain,
        "case_id": case_id,
        "complete": page.complete,
        "events": [_told(step) for step in page.steps],
        "next": page.next,
    }


def _told(step: Step) -> Mapping[str, Json]:
    state = orjson.loads(step.state) if step.state is not None else {}
    return {
        "id": step.event.id,
        "captured_id": step.event.captured_id,
        "captured_at": step.event.captured_at,
        "kind": step.event.kind,
        "outcome": step.outcome,
        "form_ids": step.form_ids(),
        "version": state.get("version"),
        "doubtful": state.get("doubtful"),
        "differences": step.differences(),
    }
