"""What the ingress reads from a request: its address, its framing, its body."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.types import Receive

from ingress.limits import Budget
from schemas.envelope import DOMAIN_PATTERN, stored_header_name
from schemas.errors import CasewireError

PREFIX: Final = "/api/v1/in"

_ADDRESS: Final = re.compile(rf"{PREFIX}/(?P<domain>{DOMAIN_PATTERN})(?:/(?P<label>[^/]+))?/?")


class ClientGoneError(CasewireError):
    """The client went away before its body had come; nobody waits for an answer."""


class BodyTooLargeError(CasewireError):
    pass


class InFlightFullError(CasewireError):
    pass


def parse_path(path: str) -> tuple[str, str] | None:
    """Return domain and label of a decoded path; None if it is spelt badly."""
    match = _ADDRESS.fullmatch(path)
    return (match["domain"], match["label"] or "") if match else None


@lru_cache(maxsize=1024)
def stored_query(query: bytes, names: tuple[str, ...]) -> str:
    """Return the parameters of those names, URL-encoded, in order."""
    if not query:
        return ""
    sent = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return urlencode([(name, value) for name, value in sent if name in names])


@dataclass(frozen=True, slots=True)
class Head:
    """The headers that may be stored, and how the body is framed.

    `length` is None if there is no Content-Length, `framed` whether the request says in any way
    where its body ends, `waits` whether the client sends its body only when told to. `size` counts
    the bytes of all headers.
    """

    stored: Sequence[tuple[str, bytes]]
    length: int | None
    framed: bool
    waits: bool
    size: int


def read_head(headers: Sequence[tuple[bytes, bytes]], secret: Collection[str]) -> Head:
    """Sort a request's headers; those named in `secret` are not stored (contract §4)."""
    stored = []
    length = None
    framed = False
    waits = False
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"content-length":
            length = int(value)
            framed = True
        elif name == b"transfer-encoding":
            framed = True
        elif name == b"expect":
            waits = True
        kept = stored_header_name(name)
        if kept is not None and kept not in secret:
            stored.append((kept, value))
    return Head(stored, length, framed, waits, size)


class Body:
    """Reads a body within a limit and a budget, which `release` gives back."""

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
        return b"".join(chunks)

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
