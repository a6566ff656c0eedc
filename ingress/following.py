"""Follows a share of the requests, from their first byte until their event is stored, as spans.

It stands between the application and the publisher, and only where spans are recorded: what is not
followed is not slowed down.
"""

import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Final, NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from ingress.publisher import Place, Publisher
from ingress.records import Event
from schemas.tracing import TRACEPARENT, Span, Tracer, continued, is_sampled, unsampled

_ROUTE: Final = "/api/v1/in/{domain}"


class _Request(NamedTuple):
    """When the request in hand began (time.perf_counter), and whether it came with a trace."""

    began: float
    traced: bool


_REQUEST: Final[ContextVar[_Request]] = ContextVar("request")


class Timed:
    """The application, telling the publisher of each request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        traced = any(name == b"traceparent" for name, _ in scope["headers"])
        _REQUEST.set(_Request(scope.get("began") or time.perf_counter(), traced))
        await self._app(scope, receive, send)


class FollowedPublisher:
    """A publisher that records a request's two spans: all of it, and the storing of its event.

    `continues`: whether a trace that the sender began goes on here, recorded if he says so. Else
    one begins here: anybody could have everything recorded, or mix his ids into our traces.
    """

    def __init__(
        self, publisher: Publisher, tracer: Tracer, topic: str, *, continues: bool
    ) -> None:
        self._publisher = publisher
        self._tracer = tracer
        self._topic = topic
        self._continues = continues
        self.start = publisher.start
        self.ready = publisher.ready
        self.stop = publisher.stop

    async def publish(self, event: Event) -> Place:
        request = _REQUEST.get()
        context = dict(event.headers)[TRACEPARENT]
        sent = context if is_sampled(context) else b""
        ours = not (self._continues and request.traced)
        if not (self._tracer.wanted() if ours else sent):
            return await self._publisher.publish(
                _with(event, unsampled(context)) if sent else event
            )
        now = time.time_ns()
        since = now - int((time.perf_counter() - request.began) * 1e9)
        parent, links = (b"", (sent,) if sent else ()) if ours else (sent, ())
        server = self._tracer.begin(f"POST {_ROUTE}", "server", since, parent=parent, links=links)
        producer = self._tracer.begin(
            f"send {self._topic}", "producer", now, parent=server.traceparent
        )
        try:
            place = await self._publisher.publish(_with(event, producer.traceparent))
        except Exception as error:
            self._end((producer, server), event, 503, failed=type(error).__name__)
            raise
        self._end((producer, server), event, 200, place=place)
        return place

    def _end(
        self,
        spans: Sequence[Span],
        event: Event,
        status: int,
        *,
        place: Place | None = None,
        failed: str = "",
    ) -> None:
        producer, server = spans
        headers = dict(event.headers)
        producer.end(
            {
                "messaging.system": "kafka",
                "messaging.operation.type": "send",
                "messaging.operation.name": "send",
                "messaging.destination.name": self._topic,
                "messaging.message.id": event.id,
                **({"casewire.stored": place} if place else {}),
            },
            failed=failed,
        )
        server.end(
            {
                "http.request.method": headers["casewire-method"].decode(),
                "http.route": _ROUTE,
                "http.response.status_code": status,
                "casewire.domain": headers["casewire-domain"].decode(),
            },
            failed=failed,
        )


def _with(event: Event, traceparent: bytes) -> Event:
    return replace(event, headers=continued(event.headers, traceparent))
