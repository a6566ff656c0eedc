"""The ASGI application: one address that takes whatever CommCare HQ forwards."""

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Final, NamedTuple

import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ingress import answers, openapi
from ingress.access import Access
from ingress.answers import METHODS, STORING, Answer, probed, respond, respond_stored
from ingress.limits import Budget
from ingress.metrics import IngressMetrics
from ingress.publisher import Place, Publisher
from ingress.rates import Rates
from ingress.records import Event
from ingress.request import (
    Body,
    BodyTooLargeError,
    ClientGoneError,
    Head,
    HeaderNames,
    InFlightFullError,
    is_forward,
    read_address,
    read_head,
)
from ingress.settings import IngressSettings
from ingress.token_endpoint import PATHS, TokenEndpoint
from schemas.envelope import REQUEST_ID, Address, EventIds, captured_headers, told_request_id
from schemas.errors import ConfigError, UnavailableError, named

_LOG_LINES_PER_SECOND: Final = 10
_SETTLE_SECONDS: Final = 1.5
_SETTLE_POLL_SECONDS: Final = 0.01

_log = structlog.get_logger(__name__)


def create_app(
    settings: IngressSettings,
    access: Access,
    publisher: Publisher,
    registry: CollectorRegistry = REGISTRY,
) -> "IngressApp":
    """Return the application; it starts and stops the publisher.

    `access` judges who may forward. Raises ConfigError if a body that is small enough could never
    be taken.
    """
    if settings.max_body_bytes > settings.max_in_flight_bytes:
        raise ConfigError(
            "[ingress] max_body_bytes is larger than max_in_flight_bytes: raise the latter"
        )
    budget = Budget(settings.max_in_flight_events, settings.max_in_flight_bytes)
    metrics = IngressMetrics(access.configured, budget, registry)
    forward = Forward(settings, access, publisher, metrics, budget)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await publisher.start()
        await _settled(publisher)
        try:
            yield
        finally:
            await publisher.stop()

    app = IngressApp(
        routes=[
            Route(openapi.PATH, openapi.Description()),
        ],
        lifespan=lifespan,
    )
    app.forward = forward
    app.token = TokenEndpoint(access, metrics.answered)
    app.metrics = metrics
    app.router.default = Unrouted(metrics)
    # A redirect turns HQ's POST into a GET without a body, and loses the event (protocol.md §1.0).
    app.router.redirect_slashes = False
    return app


async def _settled(publisher: Publisher) -> None:
    """Give the publisher a moment to reach Kafka before requests come.

    In a rolling restart another process still takes them; if Kafka is down, somebody has to.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE_SECONDS):
            while publisher.ready() is not None:  # noqa: ASYNC110 - what is awaited sets no event
                await asyncio.sleep(_SETTLE_POLL_SECONDS)


class IngressApp(Starlette):
    """Starlette, but for what HQ asks for with each payload: its routing doubles the cost."""

    forward: Callable[[Scope, Receive, Send], Coroutine[object, object, None]]
    token: TokenEndpoint
    metrics: IngressMetrics

    def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> Coroutine[object, object, None]:
        if scope["type"] == "http" and is_forward(scope["path"]):
            return self.forward(scope, receive, send)
        if scope["type"] == "http" and scope["path"] in PATHS:
            return self.token(scope, receive, send)
        return super().__call__(scope, receive, send)


class Unrouted:
    """What no route matches."""

    def __init__(self, metrics: IngressMetrics) -> None:
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._metrics.answered(answers.NOT_FOUND)
        await respond(send, answers.NOT_FOUND)


class Forward:
    """The endpoint, as a plain ASGI class: half as fast again as with Request and Response."""

    def __init__(
        self,
        settings: IngressSettings,
        access: Access,
        publisher: Publisher,
        metrics: IngressMetrics,
        budget: Budget,
    ) -> None:
        self._settings = settings
        self._access = access
        self._query_names = tuple(settings.stored_query_parameters)
        self._header_names = HeaderNames(frozenset())
        self._publisher = publisher
        self._metrics = metrics
        self._budget = budget
        self._rates = Rates(settings.max_events_per_second)
        self._ids = EventIds()
        self._failures = Failures()
        self._telling = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began: float = scope.get("began") or time.perf_counter()
        body = Body(receive, self._settings.max_body_bytes, self._budget)
        try:
            outcome = await self._outcome(scope, body)
        except ClientGoneError:
            return
        except asyncio.CancelledError:
            # The server ends requests that outlast its shutdown; a 500 may be final for HQ.
            outcome = answers.SHUTTING_DOWN
        except Exception as error:  # noqa: BLE001 - HQ must hear 503, whatever it is
            outcome = self._failures.answer(error, **named_by(scope))
        finally:
            body.release()
        if isinstance(outcome, Answer):
            self._metrics.answered(outcome)
            if self._telling:
                _log.debug(
                    "a request is answered",
                    status=outcome.status,
                    refusal=outcome.refusal or "",
                    **named_by(scope),
                )
            await respond(send, outcome)
            return
        seconds = time.perf_counter() - began
        self._metrics.stored(outcome.domain, scope["method"], outcome.size, seconds)
        if self._telling:
            _log.debug(
                "an event is stored",
                event_id=outcome.event_id,
                domain=outcome.domain,
                stored=outcome.place,
                bytes=outcome.size,
                seconds=round(seconds, 6),
                **named_by(scope),
            )
        await respond_stored(send, outcome.event_id, outcome.place)

    async def _outcome(self, scope: Scope, body: Body) -> "Answer | Receipt":
        head = self._head(scope)
        address = await self._judge(scope, head)
        if isinstance(address, Answer):
            if not head.waits:
                await body.skip()
            return probed(address, scope["headers"]) if scope["method"] == "GET" else address
        try:
            content = await body.read()
        except BodyTooLargeError:
            await body.skip()
            return answers.too_large(self._settings.max_body_bytes)
        except InFlightFullError:
            await body.skip()
            return answers.IN_FLIGHT_FULL
        event_id, event_time = self._ids.next()
        if not head.traced:
            head.stored.append(("traceparent", self._ids.traceparent()))
        event = Event(
            event_id, captured_headers(event_id, event_time, address, head.stored), content
        )
        try:
            place = await self._publisher.publish(event)
        except Exception as error:  # noqa: BLE001 - as above, and the log names the event
            return self._failures.answer(
                error, event_id=event_id, domain=address.domain, **named_by(scope)
            )
        return Receipt(event_id, place, address.domain, len(content))

    def _head(self, scope: Scope) -> Head:
        secret = self._access.policy.secret_headers
        if self._header_names.secret is not secret:
            self._header_names = HeaderNames(secret)
        return read_head(scope["headers"], self._header_names)

    async def _judge(self, scope: Scope, head: Head) -> Answer | Address:
        """Return the answer that needs no body, or the address of an event to store."""
        address = read_address(scope, self._query_names)
        if address is None or address.method not in METHODS:
            return answers.METHOD_NOT_ALLOWED if address else answers.BAD_ADDRESS
        if not self._access.policy.knows(address.domain):
            return answers.UNKNOWN_DOMAIN
        refused = await self._access.refusal(address.domain, scope)
        if refused is not None or address.method not in STORING:
            return refused or answers.connection_works(address.domain)
        if not self._rates.take(self._metrics.label(address.domain)):
            return answers.RATE_EXCEEDED
        return badly_framed(address.method, head, self._settings.max_body_bytes) or address


class Receipt(NamedTuple):
    """A durable event. `size` is its body's."""

    event_id: str
    place: Place
    domain: str
    size: int


class Failures:
    """Turns what went wrong on our side into an answer and a log line: some lines a second only.

    Neither message nor traceback of what is unexpected is logged: both can quote the request.
    """

    def __init__(self) -> None:
        self._rates = Rates(_LOG_LINES_PER_SECOND)
        self._left_out = 0

    def answer(self, error: Exception, **about: str) -> Answer:
        if isinstance(error, UnavailableError):
            if self._rates.take(""):
                _log.error("an event was not stored", reason=str(error), **self._more(about))
            else:
                self._left_out += 1
            return answers.unavailable(str(error))
        if self._rates.take(""):
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{frame.filename}:{frame.lineno}"
            _log.error("a request failed", where=where, **named(error), **self._more(about))
        else:
            self._left_out += 1
        return answers.UNEXPECTED

    def _more(self, about: Mapping[str, str]) -> Mapping[str, str | int]:
        left_out, self._left_out = self._left_out, 0
        return {"left_out": left_out, **about}


def named_by(scope: Scope) -> dict[str, str]:
    """Return a request's own id, if it has one, as log lines tell it."""
    sent = told_request_id(dict(scope["headers"]).get(REQUEST_ID.encode()))
    return {"request_id": sent} if sent else {}


def badly_framed(method: str, head: Head, max_body_bytes: int) -> Answer | None:
    """Return why the body of a request cannot be taken, judged before it is read.

    POST and PUT announce their body, even an empty one (RFC 9110 §8.6, and HQ does so). One that
    does not may have lost it on the way: taken as empty, it would be lost with a receipt.
    """
    if not head.framed and method in ("POST", "PUT"):
        return answers.LENGTH_REQUIRED
    if head.length is not None and head.length > max_body_bytes:
        return answers.too_large(max_body_bytes)
    return None
