"""What the ingress reads from a request: its address, its framing, its body."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode

from starlette.types import Receive, Scope

from ingress.limits import Budget
from schemas.envelope import DOMAIN_PATTERN, Address, stored_header_name
from schemas.errors import CasewireError

PREFIX: Final = "/api/v1/in"

_ADDRESS: Final = re.compile(rf"{PREFIX}/(?P<domain>{DOMAIN_PATTERN})(?:/(?P<label>[^/]+))?/?")
#: What is longer is not remembered: a memory must not grow with what somebody sends.
_REMEMBERED_BYTES: Final = 512
_REMEMBERED_NAMES: Final = 2048

#: W3C Trace Context §3.2: version 00 has exactly these fields, ids of zeros are invalid.
_TRACE: Final = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT: Final = re.compile(b"00" + _TRACE + b"|(?!00|ff)[0-9a-f]{2}" + _TRACE + b"(?:-.*)?")


class ClientGoneError(CasewireError):
    """The client went away before its body had come; nobody waits for an answer."""


class BodyTooLargeError(CasewireError):
    pass


class InFlightFullError(CasewireError):
    pass


def is_forward(path: str) -> bool:
    """Return whether a decoded path is under the address of forwarders, well spelt or not."""
    return path.startswith(PREFIX) and path[len(PREFIX) : len(PREFIX) + 1] in ("", "/")


def parse_path(path: str) -> tuple[str, str] | None:
    """Return domain and label of a decoded path; None if it is spelt badly."""
    match = _ADDRESS.fullmatch(path)
    return (match["domain"], match["label"] or "") if match else None


def read_address(scope: Scope, query_names: tuple[str, ...]) -> Address | None:
    """Return where a request was sent to; None if that is spelt badly."""
    raw_path, query = scope["raw_path"], scope["query_string"]
    if len(raw_path) + len(query) > _REMEMBERED_BYTES:
        return _address.__wrapped__(scope["method"], scope["path"], raw_path, query, query_names)
    return _address(scope["method"], scope["path"], raw_path, query, query_names)


@lru_cache(maxsize=1024)
def _address(
    method: str, path: str, raw_path: bytes, query: bytes, query_names: tuple[str, ...]
) -> Address | None:
    place = parse_path(path)
    if place is None:
        return None
    return Address(
        domain=place[0],
        label=place[1],
        method=method,
        path=raw_path.decode("latin-1"),
        query=stored_query(query, query_names),
    )


def stored_query(query: bytes, names: tuple[str, ...]) -> str:
    """Return the parameters of those names, URL-encoded, in order."""
    if not query:
        return ""
    sent = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return urlencode([(name, value) for name, value in sent if name in names])


class HeaderNames(dict[bytes, str]):
    """The name under which each request header is stored, by its name in lower case.

    It is empty for one that is not stored (contract §4), such as those in `secret`.
    """

    def __init__(self, secret: frozenset[str]) -> None:
        super().__init__()
        self.secret = secret

    def __missing__(self, name: bytes) -> str:
        kept = stored_header_name(name)
        if kept is None or kept in self.secret:
            kept = ""
        if len(self) < _REMEMBERED_NAMES and len(name) < _REMEMBERED_BYTES:
            self[name] = kept
        return kept


class Head(NamedTuple):
    """The headers that may be stored, and how the body is framed.

    `length` is None if there is no Content-Length, `framed` whether the request says in any way
    where its body ends, `waits` whether the client sends its body only when told to, `traced`
    whether there is a valid W3C trace context.
    """

    stored: list[tuple[str, bytes]]
    length: int | None
    framed: bool
    waits: bool
    traced: bool


def read_head(headers: Sequence[tuple[bytes, bytes]], names: HeaderNames) -> Head:
    """Sort a request's headers, whose names are in lower case.

    A trace context that is broken, or there more than once, is left out.
    """
    sent = dict(headers)
    stored = [(kept, value) for name, value in headers if (kept := names[name])]
    length = sent.get(b"content-length")
    traced = b"traceparent" in sent
    if traced and not _traceparent(stored):
        stored = [header for header in stored if header[0] != "traceparent"]
        traced = False
    return Head(
        stored,
        None if length is None else int(length),
        length is not None or b"transfer-encoding" in sent,
        b"expect" in sent,
        traced,
    )


def _traceparent(stored: Sequence[tuple[str, bytes]]) -> bool:
    values = [value for name, value in stored if name == "traceparent"]
    return len(values) == 1 and _TRACEPARENT.fullmatch(values[0]) is not None


class Body:
    """Reads a body within a limit and a budget, which `release` gives back."""

    __slots__ = ("_budget", "_counted", "_limit", "_more", "_receive", "_taken")

    def __init__(self, receive: Receive, limit: int, budget: Budget) -> None:
        self._receive = receive
        self._limit = limit
        self._budget = budget
        self._taken = 0
        self._counted = 0
        self._more = True

    async def read(self) -> bytes:
        """Return the whole body.

        Raises ClientGoneError if it breaks off, BodyTooLargeError above the limit, and
        InFlightFullError if the budget has no room for it.
        """
        if not self._budget.take(0, events=1):
            raise InFlightFullError
        self._counted = 1
        chunks = []
        while self._more:
            chunk = await self._next()
            self._take(len(chunk))
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def skip(self) -> None:
        """Read on without keeping anything, up to the limit.

        A client hears an early answer only if it could send all that it had to say: else it sees
        a broken connection, which HQ takes as a failure that passes.
        """
        skipped = 0
        while self._more and skipped <= self._limit:
            skipped += len(await self._next())

    def release(self) -> None:
        self._budget.give_back(self._taken, events=self._counted)
        self._taken = self._counted = 0

    def _take(self, size: int) -> None:
        if self._taken + size > self._limit:
            raise BodyTooLargeError
        if not self._budget.take(size):
            raise InFlightFullError
        self._taken += size

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        self._more = message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk
