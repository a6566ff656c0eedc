"""HTTP/1.1 as the ingress serves it: httptools' parser, ASGI, and a bound on all a client sends.

uvicorn's protocols bound neither a head while it arrives nor the time that a request takes to come,
ask the system for two addresses a connection, and write an answer in two pieces.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from itertools import chain
from typing import Final, Literal, TypeAlias, cast
from urllib.parse import unquote_to_bytes

import httptools
import structlog
from starlette.types import ASGIApp, Message, Scope

from ingress import answers
from ingress.answers import Answer, ResponseHeaders, respond
from ingress.proxies import Proxies

Phase: TypeAlias = Literal["idle", "head", "body", "over"]

#: A body that the application has not taken yet stops the reading above this size.
_HIGH_WATER: Final = 64 * 1024
#: A client that does not read its answers is cut off above this size.
_UNREAD_BYTES: Final = 256 * 1024
#: How long a client may go on sending after an answer that ends the connection.
_LINGER_SECONDS: Final = 2.0
#: How long a client may take to send after we are asked to leave.
_LAST_CHANCE_SECONDS: Final = 1.0

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_EXPECTED: Final = (b"expect", b"100-continue")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST: Final = b"connection: close\r\n\r\n"
_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a client may do.

    `head_seconds` is for a whole head, `body_seconds` for a whole body, `silence_seconds` for the
    time between two bytes of a body, `idle_seconds` for a connection without a request.
    """

    head_bytes: int
    head_fields: int
    head_seconds: float
    body_seconds: float
    silence_seconds: float
    idle_seconds: float
    connections: int


@dataclass(slots=True, kw_only=True)
class Traffic:
    """The connections of a server, and the requests that are being answered by `app`.

    `refused` hears of each answer that `app` has no part in. From `leaving` on, every answer is the
    last of its connection.
    """

    app: ASGIApp
    bounds: Bounds
    proxies: Proxies
    refused: Callable[[Answer], None]
    connections: "set[Connection]" = field(default_factory=set)
    exchanges: "set[Exchange]" = field(default_factory=set)
    leaving: bool = False


class Connection(asyncio.Protocol):
    """The transport of a client, and the requests that came over it, answered one by one."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.transport: asyncio.Transport
        self.client: tuple[str, int] | None = None
        self.scheme = "http"
        self.heard = time.perf_counter()
        self._reader = Reader(self)
        self._waiting: deque[Exchange] = deque()
        self._current: Exchange | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.client = (str(peer[0]), int(peer[1])) if peer else None
        if transport.get_extra_info("sslcontext") is not None:
            self.scheme = "https"
        connections = self.traffic.connections
        connections.add(self)
        if len(connections) > self.traffic.bounds.connections:
            if len(connections) > 2 * self.traffic.bounds.connections:
                transport.abort()
            else:
                self.refuse(answers.CONNECTIONS_FULL)

    def connection_lost(self, exc: Exception | None) -> None:
        self.traffic.connections.discard(self)
        self._reader.leave()
        self._waiting.clear()
        if self._current is not None:
            self._current.break_off()

    def data_received(self, data: bytes) -> None:
        if self._reader.phase == "over":
            return
        self.heard = time.perf_counter()
        refusal = self._reader.feed(data)
        if refusal is not None:
            self.refuse(refusal)

    def eof_received(self) -> bool:
        """Return whether to stay open: for a client that has said all and waits for its answer."""
        self._reader.phase = "over"
        current = self._current
        return current is not None and current.complete and self.scheme == "http"

    def begin(self, exchange: "Exchange") -> None:
        """Have a request answered, after those that came before it."""
        if self._current is not None:
            self._waiting.append(exchange)
            pause(self.transport)
            return
        self._current = exchange
        self.traffic.exchanges.add(exchange)
        exchange.task = asyncio.get_running_loop().create_task(exchange.run())

    def answered(self, exchange: "Exchange") -> None:
        """Go on after an answer: with the next request, or with the end."""
        self.traffic.exchanges.discard(exchange)
        self._current = None
        self.heard = time.perf_counter()
        if self.transport.is_closing():
            return
        if not exchange.complete:
            self._linger()
        elif exchange.last or self.transport.get_write_buffer_size() > _UNREAD_BYTES:
            self.transport.close()
        elif self._waiting:
            self.begin(self._waiting.popleft())
        elif self._reader.phase == "over":
            self.transport.close()
        else:
            resume(self.transport)

    def refuse(self, answer: Answer) -> None:
        """End the connection with an answer of our own, unless an earlier one is still to come."""
        self._waiting.clear()
        current = self._current
        if current is not None and current.complete:
            current.last = True
            self._reader.phase = "over"
            return
        self.traffic.refused(answer)
        if current is None or not current.started:
            head = response_head(answer.status, answer.all_headers, last=True)
            self.transport.write(head + answer.body)
        if current is not None:
            current.break_off()
        self._linger()

    def check(self, now: float) -> None:
        """End what takes longer than its bound. `now` is of `time.perf_counter`."""
        if self.transport.is_closing():
            return
        reader = self._reader
        silent = now - self.heard
        if reader.phase == "over":
            if self._current is None and silent > _LINGER_SECONDS:
                self.transport.abort()
        elif reader.phase == "idle":
            usual = self.traffic.bounds.idle_seconds
            limit = _LAST_CHANCE_SECONDS if self.traffic.leaving else usual
            if self._current is None and silent > limit:
                self.transport.close()
        elif reader.too_slow(now, silent if self.transport.is_reading() else 0):
            self.refuse(answers.TOO_SLOW)

    def _linger(self) -> None:
        """Say no more, and let the client finish: one that is cut off sees no answer."""
        self._reader.phase = "over"
        self.heard = time.perf_counter()
        resume(self.transport)
        if self.transport.can_write_eof():
            self.transport.write_eof()


class Reader:
    """Makes requests of the bytes of a connection. httptools calls its `on_…` methods.

    `began` is when the first byte of a request came. No more than `head_bytes` are ever read
    without an end of a head, or a piece of a body, in them.
    """

    def __init__(self, connection: Connection) -> None:
        self.phase: Phase = "idle"
        self.began = 0.0
        self._connection = connection
        self._bounds = connection.traffic.bounds
        self._parser = httptools.HttpRequestParser(self)
        self._pending = 0
        self._too_large = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._exchange: Exchange | None = None

    def feed(self, data: bytes) -> Answer | None:
        """Take what came. Return the answer that it deserves if the connection must end."""
        self._pending += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            return answers.HEAD_TOO_LARGE if self._too_large else answers.BROKEN_HTTP
        if self._pending > self._bounds.head_bytes and self.phase != "idle":
            return answers.HEAD_TOO_LARGE
        return None

    def _ignore_upgrade(self, rest: bytes) -> Answer | None:
        """Go on with HTTP/1.1, as a server may (RFC 9110 §7.8): httptools would drop the body."""
        framing = [b"%b: %b\r\n" % header for header in self._headers if header[0] in _FRAMING]
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
        return self.feed(rest) if rest else None

    def leave(self) -> None:
        """Read no more, ever. What pointed here in a circle is freed without a collection."""
        self.phase = "over"
        del self._parser, self._connection
        self._exchange = None

    def too_slow(self, now: float, silent: float) -> bool:
        """Return whether a request takes longer to come than it may."""
        bounds = self._bounds
        if self.phase == "head":
            return now - self.began > bounds.head_seconds
        return now - self.began > bounds.body_seconds or silent > bounds.silence_seconds

    def on_message_begin(self) -> None:
        if self.phase == "body":  # the head is repeated for another parser
            return
        self.phase = "head"
        self.began = self._connection.heard
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        if self.phase == "head":
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase == "head":  # else it is a trailer, which nobody sends
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.phase == "body":
            return
        bounds = self._bounds
        size = len(self._url) + sum(map(len, chain.from_iterable(self._headers)))
        if size > bounds.head_bytes or len(self._headers) > bounds.head_fields:
            self._too_large = True
            raise ValueError
        version = self._parser.get_http_version()
        exchange = Exchange(self._connection, self._scope(version))
        exchange.last = version == "1.0" or not self._parser.should_keep_alive()
        self.phase = "body"
        self._exchange = exchange
        self._connection.begin(exchange)

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        if self._exchange is not None:
            self._exchange.take(body)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        self._pending = 0
        self.phase = "idle"
        if self._exchange is not None:
            self._exchange.finish()

    def _scope(self, version: str) -> Scope:
        path, _, query = self._url.partition(b"?")
        if not path.startswith(b"/"):
            parsed = httptools.parse_url(self._url)
            path, query = parsed.path or b"/", parsed.query or b""
        decoded = unquote_to_bytes(path) if b"%" in path else path
        connection = self._connection
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": self._parser.get_method().decode("ascii"),
            "scheme": connection.scheme,
            "path": decoded.decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "client": connection.traffic.proxies.client(connection.client, self._headers),
            "began": self.began,
        }


class Exchange:
    """One request and its answer: the `receive` and `send` of ASGI.

    `complete` is whether all of the request has come, `last` whether the connection ends with its
    answer, `started` whether the answer has begun.
    """

    __slots__ = (
        "_chunks", "_connection", "_delivered", "_gone", "_scope", "_size", "_start", "_told",
        "_waiter", "complete", "last", "started", "task",
    )  # fmt: skip

    def __init__(self, connection: Connection, scope: Scope) -> None:
        self.complete = False
        self.last = False
        self.started = False
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self._scope = scope
        self._chunks: list[bytes] = []
        self._size = 0
        self._delivered = False
        self._gone = False
        self._told = False
        self._waiter: asyncio.Future[None] | None = None
        self._start: Message = {}

    async def run(self) -> None:
        """Have the application answer; it may end without an answer if the client has gone."""
        try:
            await self._connection.traffic.app(self._scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001 - the client must hear something
            _log.error("a request failed", error=type(error).__name__)
            if not self.started:
                self._connection.traffic.refused(answers.UNEXPECTED)
                await respond(self.send, answers.UNEXPECTED)
        finally:
            self._connection.answered(self)

    def take(self, chunk: bytes) -> None:
        """Take a piece of the body; one that comes after the answer is dropped."""
        if self.started:
            return
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > _HIGH_WATER:
            pause(self._connection.transport)
        self._wake()

    def finish(self) -> None:
        """Take note that the whole request has come."""
        self.complete = True
        self._wake()

    def break_off(self) -> None:
        """Take note that the client has gone: nothing is received or sent any more."""
        self._gone = True
        self._wake()

    async def receive(self) -> Message:
        while not (self._gone or self._chunks or (self.complete and not self._delivered)):
            if not self._told and _EXPECTED in self._scope["headers"]:
                self._connection.transport.write(_CONTINUE)
            self._told = True
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._gone:
            return {"type": "http.disconnect"}
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        if self._size > _HIGH_WATER:
            resume(self._connection.transport)
        self._size = 0
        self._delivered = self.complete
        return {"type": "http.request", "body": body, "more_body": not self.complete}

    async def send(self, message: Message) -> None:
        """Send an answer, whose body must come in one piece."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        self.started = True
        if self._gone:
            return
        if self._connection.traffic.leaving or not self.complete:
            self.last = True
        body = b"" if self._scope["method"] == "HEAD" else message.get("body", b"")
        head = response_head(self._start["status"], self._start["headers"], last=self.last)
        self._connection.transport.write(head + body)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def pause(transport: asyncio.Transport) -> None:
    """Stop reading; uvloop minds being told twice."""
    if transport.is_reading():
        transport.pause_reading()


def resume(transport: asyncio.Transport) -> None:
    if not transport.is_reading():
        transport.resume_reading()


def response_head(status: int, headers: ResponseHeaders, *, last: bool) -> bytes:
    """Return the head of an answer; `last` if it is the last of its connection."""
    return _head_until(status, tuple(headers), _LAST if last else b"\r\n")


@lru_cache(maxsize=256)
def _head_until(status: int, headers: ResponseHeaders, end: bytes) -> bytes:
    fields = [b"%b: %b\r\n" % header for header in headers]
    return b"".join((_STATUS_LINES[status], *fields, end))
