"""The ASGI application: one address that takes whatever CommCare HQ forwards."""

import asyncio
import contextlib
import time
import traceback
from collections.abc import AsyncIterator
from typing import Final

import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ingress import answers, openapi
from ingress.access import Access
from ingress.answers import Answer, respond
from ingress.limits import Budget
from ingress.metrics import IngressMetrics
from ingress.publisher import Publisher
from ingress.records import Event
from ingress.request import (
    PREFIX,
    Body,
    BodyTooLargeError,
    ClientGoneError,
    Head,
    InFlightFullError,
    parse_path,
    read_head,
    stored_query,
)
from ingress.settings import IngressSettings
from ingress.token_endpoint import PATHS, TokenEndpoint
from schemas.envelope import Address, EventIds, captured_headers
from schemas.errors import ConfigError, UnavailableError

#: HTTP servers refuse requests with larger headers than some 8 to 64 KiB.
MAX_HEAD_BYTES: Final = 64 * 1024

_log = structlog.get_logger(__name__)


def create_app(
    settings: IngressSettings,
    access: Access,
    publisher: Publisher,
    registry: CollectorRegistry = REGISTRY,
) -> Starlette:
    """Return the application; it starts and stops the publisher.

    `access` judges who may forward. Raises ConfigError if a body that is small enough could never
    be taken.
    """
    if settings.max_body_bytes > settings.max_in_flight_bytes:
        raise ConfigError(
            "[ingress] max_body_bytes is larger than max_in_flight_bytes: raise the latter"
        )
    forward = Forward(settings, access, publisher, registry)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await publisher.start()
        try:
            yield
        finally:
            await publisher.stop()

    app = Starlette(
        routes=[
            Route(f"{PREFIX}/{{rest:path}}", forward),
            Route(PREFIX, forward),
            *(Route(path, TokenEndpoint(access)) for path in PATHS),
            Route(openapi.PATH, openapi.Description()),
        ],
        lifespan=lifespan,
    )
    app.router.default = _Unrouted(forward)
    # A redirect turns HQ's POST into a GET without a body, and loses the event (protocol.md §1.0).
    app.router.redirect_slashes = False
    return app


class _Unrouted:
    """What no route matches: a line break in a path too, and that must not be 404 under PREFIX."""

    def __init__(self, forward: "Forward") -> None:
        self._forward = forward

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(f"{PREFIX}/"):
            await self._forward(scope, receive, send)
        else:
            await respond(send, answers.NOT_FOUND)


class Forward:
    """The endpoint, as a plain ASGI class: half as fast again as with Request and Response."""

    def __init__(
        self,
        settings: IngressSettings,
        access: Access,
        publisher: Publisher,
        registry: CollectorRegistry,
    ) -> None:
        self._settings = settings
        self._access = access
        self._query_names = tuple(settings.stored_query_parameters)
        self._publisher = publisher
        self._budget = Budget(settings.max_in_flight_events, settings.max_in_flight_bytes)
        self._metrics = IngressMetrics(access.configured, self._budget, registry)
        self._ids = EventIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(scope, receive)
        except ClientGoneError:
            return
        except asyncio.CancelledError:
            # The server ends requests that outlast its shutdown; a 500 may be final for HQ.
            answer = answers.SHUTTING_DOWN
        except UnavailableError as error:
            answer = answers.unavailable(str(error))
        except Exception as error:  # noqa: BLE001 - HQ must hear 503, whatever it is
            # Neither message nor traceback: both can quote the request.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{frame.filename}:{frame.lineno}"
            _log.error("a request failed", error=type(error).__name__, where=where)
            answer = answers.UNEXPECTED
        self._metrics.answered(answer.status)
        await respond(send, answer)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        started = time.perf_counter()
        body = Body(receive, self._settings.max_body_bytes, self._budget)
        head = read_head(scope["headers"], self._access.policy.secret_headers)
        address = await self._judge(scope, head)
        if isinstance(address, Answer):
            if not head.waits:
                await body.skip()
            return address
        try:
            content = await body.read()
            event_id, event_time = self._ids.next()
            headers = captured_headers(event_id, event_time, address, head.stored)
            await self._publisher.publish(Event(event_id, headers, content))
        except BodyTooLargeError:
            await body.skip()
            return answers.too_large(self._settings.max_body_bytes)
        except InFlightFullError:
            await body.skip()
            return answers.IN_FLIGHT_FULL
        finally:
            body.release()
        seconds = time.perf_counter() - started
        self._metrics.stored(address.domain, address.method, len(content), seconds)
        return answers.stored(event_id)

    async def _judge(self, scope: Scope, head: Head) -> Answer | Address:
        """Return the answer that needs no body, or the address of an event to store."""
        place = parse_path(scope["path"])
        method = scope["method"]
        if place is None:
            return answers.BAD_ADDRESS
        if method not in answers.METHODS:
            return answers.METHOD_NOT_ALLOWED
        domain, label = place
        if not self._access.policy.knows(domain):
            return answers.UNKNOWN_DOMAIN
        refused = await self._access.refusal(domain, scope)
        if refused is not None:
            return refused
        if method in ("GET", "HEAD"):
            return answers.connection_works(domain)
        refusal = badly_framed(method, head, self._settings.max_body_bytes)
        return refusal or Address(
            domain=domain,
            label=label,
            method=method,
            path=scope["raw_path"].decode("ascii"),
            query=stored_query(scope["query_string"], self._query_names),
        )


def badly_framed(method: str, head: Head, max_body_bytes: int) -> Answer | None:
    """Return why the body of a request cannot be taken, judged before it is read.

    POST and PUT announce their body, even an empty one (RFC 9110 §8.6, and HQ does so). One that
    does not may have lost it on the way: taken as empty, it would be lost with a receipt.
    """
    if head.size > MAX_HEAD_BYTES:
        return answers.HEAD_TOO_LARGE
    if not head.framed and method in ("POST", "PUT"):
        return answers.LENGTH_REQUIRED
    if head.length is not None and head.length > max_body_bytes:
        return answers.too_large(max_body_bytes)
    return None
