"""A real HTTP server that stands for a target, and cases and forms on their way to it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from aiohttp import web

from schemas.values import Json
from sinks.base import Message, Source, parsed
from sinks.http_settings import HttpSettings
from sinks.http_sink import HttpSink
from streams.decode import decode
from streams.state import case_judge, form_judge
from tests.servers import free_port
from tests.streams.made import Made, captured, state


@dataclass(frozen=True, slots=True)
class Received:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    request: web.Request

    @property
    def event(self) -> str:
        return self.headers["idempotency-key"]


Answer: TypeAlias = Callable[[Received], Awaitable[web.StreamResponse]]


async def ok(_received: Received) -> web.StreamResponse:
    return web.json_response({"work_order_id": "1"})


def always(status: int, text: str = "", **headers: str) -> Answer:
    async def answer(_received: Received) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers=headers)

    return answer


@dataclass
class Target:
    """`received` is all that came, `taken` the events that were answered with 2xx."""

    answer: Answer = ok
    tls: ssl.SSLContext | None = None
    port: int = field(default_factory=free_port)
    received: list[Received] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    busiest: int = 0
    _runner: web.AppRunner | None = None
    _busy: int = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/i/inbox"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)  # 0 is without end
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls).start()

    async def kill(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(
            request.method,
            request.path,
            dict(request.query),
            headers,
            await request.read(),
            request,
        )
        self.received.append(received)
        self._busy += 1
        self.busiest = max(self.busiest, self._busy)
        try:
            answer = await self.answer(received)
        finally:
            self._busy -= 1
        if answer.status < 300 and "idempotency-key" in headers:
            self.taken.append(received.event)
        return answer


@asynccontextmanager
async def serving(
    answer: Answer = ok, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Target]:
    target = Target(answer, tls)
    await target.start()
    try:
        yield target
    finally:
        await target.kill()


@asynccontextmanager
async def sink_to(target: Target, **settings: Json) -> AsyncIterator[HttpSink]:
    sink = HttpSink(HttpSettings(url=target.url, **settings))
    try:
        yield sink
    finally:
        await sink.close()


def message(key: str, number: int = 0, source: Source = "cases", **properties: str) -> Message:
    value, event = parsed(state(key, number + 1, **properties).to_json(), "case-state")
    return Message(
        source=source,
        partition=0,
        offset=number,
        timestamp=0,
        key=f"demo/{key}",
        headers=[("ce_id", f"{key}-{number}".encode())],
        value=value,
        event=event,
        version=number + 1,
    )


def forwarded(body: bytes, *headers: tuple[str, bytes]) -> Sequence[Made]:
    """Return the records of the event and of the state that a body of HQ's becomes."""
    decoded = decode(captured(body, headers=[("content-type", b"application/json"), *headers]))
    out = decoded.out
    event = Made(out.value, out.key, out.headers, f"casewire.{decoded.topic}")
    if decoded.topic == "cases":
        judged, kind = case_judge(writer="w", window_microseconds=0)(event, None), "case"
    else:
        judged, kind = form_judge(writer="w")(event, None), "form"
    assert judged.publish is not None
    made = judged.publish
    return event, Made(made.value, made.key, made.headers, f"casewire.{kind}-state")


async def many_turns(number: int) -> None:
    """Let others have so many turns."""
    for _ in range(number):
        await asyncio.sleep(0)
