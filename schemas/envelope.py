"""A forwarded request as a Kafka record, and the headers of all that is derived from it.

CloudEvents 1.0 in Kafka binary mode (contract §4): the body is the record's value, byte for byte,
and everything else is a header: CloudEvents' attributes (`ce_*`), ours (`casewire-*`), and the
request's own headers with lower-case names and untouched values, repeats in order.
"""

import os
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, Self, TypeAlias
from urllib.parse import parse_qs

import msgspec

from schemas.errors import InvalidEventError
from schemas.times import from_microseconds

Headers: TypeAlias = Sequence[tuple[str, bytes]]
Origin: TypeAlias = Literal["live", "backfill", "reconcile", "replay"]

FORWARDED: Final = "org.commcare.forwarded"
DOMAIN_PATTERN: Final = r"[a-z0-9.-]+"

#: The header by which proxies name a request.
REQUEST_ID: Final = "x-request-id"
#: What nginx, Caddy, Envoy and HAProxy make: hexadecimal, or a UUID. No number of a telephone.
_REQUEST_ID: Final = re.compile(rb"[0-9A-Fa-f-]{16,64}")

_NEVER_WRITTEN: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
_SECRET_PARTS: Final = ("api-key", "token", "secret", "password")
_OWN_PREFIXES: Final = ("ce_", "ce-", "casewire-")

#: Sub-millisecond steps that a UUIDv7 can tell apart (RFC 9562 §6.2, method 3).
_STEPS_PER_MS: Final = 4096
_NS_PER_MS: Final = 1_000_000
#: Random numbers that are fetched at once.
_BLOCK: Final = 512


def stored_header_name(name: bytes) -> str | None:
    """Return the name under which a request header is stored, None if it never is.

    Credentials are not written, nor what would pass for a header of ours.
    """
    lower = name.decode("latin-1").lower()
    if lower in _NEVER_WRITTEN or lower.startswith(_OWN_PREFIXES):
        return None
    if any(part in lower for part in _SECRET_PARTS):
        return None
    return lower


def told_request_id(sent: bytes | None) -> str:
    """Return a request id as log lines tell it; empty if it does not look like one."""
    return sent.decode() if sent is not None and _REQUEST_ID.fullmatch(sent) else ""


class EventIds:
    """Makes event ids (UUIDv7) that only grow within a process, each with its time.

    For one thread. `clock` returns nanoseconds since 1970, `entropy` that many random bytes.
    """

    def __init__(
        self,
        clock: Callable[[], int] = time.time_ns,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._clock = clock
        self._entropy = entropy
        self._last = 0
        self._numbers: Iterator[int] = iter(())

    def next(self) -> tuple[str, str]:
        """Return a new id and its `ce_time`."""
        now = self._clock()
        steps = self._last = max(now * _STEPS_PER_MS // _NS_PER_MS, self._last + 1)
        number = steps >> 12
        random = self._random()
        event_id = (
            f"{number >> 16:08x}-{number & 0xFFFF:04x}-7{steps & 0xFFF:03x}"
            f"-{random >> 48 & 0x3FFF | 0x8000:04x}-{random & 0xFFFF_FFFF_FFFF:012x}"
        )
        return event_id, from_microseconds(now // 1000)

    def traceparent(self) -> bytes:
        """Return a W3C trace context of a trace that begins here, not sampled."""
        trace = self._random() << 64 | self._random() or 1
        return f"00-{trace:032x}-{self._random() or 1:016x}-00".encode()

    def _random(self) -> int:
        """Return 64 random bits. They are fetched in blocks: a system call each would cost most."""
        number = next(self._numbers, None)
        if number is None:
            self._numbers = iter(struct.unpack(f">{_BLOCK}Q", self._entropy(8 * _BLOCK)))
            number = next(self._numbers)
        return number


class Captured(msgspec.Struct, frozen=True):
    """A forwarded request as it was captured. `headers` are all headers of its record.

    A struct, as values are (schemas/values.py): one is made for each event.
    """

    id: str
    time: str
    domain: str
    label: str
    method: str
    query: str
    headers: Headers
    body: bytes

    @classmethod
    def from_record(cls, value: bytes | None, headers: Headers) -> Self:
        """Raise InvalidEventError if a header that the ingress always writes is missing."""
        first = dict(reversed(headers))
        try:
            return cls(
                id=first["ce_id"].decode(),
                time=first["ce_time"].decode(),
                domain=first["casewire-domain"].decode(),
                label=first.get("casewire-label", b"").decode(),
                method=first["casewire-method"].decode(),
                query=first.get("casewire-query", b"").decode(),
                headers=headers,
                body=value or b"",
            )
        except KeyError as error:
            raise InvalidEventError(
                "invalid_field",
                "the record lacks a header that the ingress always writes",
                path=f"headers.{error.args[0]}",
            ) from error
        except UnicodeDecodeError as error:
            raise InvalidEventError(
                "invalid_field", "a header of the record is not UTF-8", path="headers"
            ) from error

    def header(self, name: str) -> str | None:
        """Return the first header of that (lower-case) name; bytes beyond ASCII as latin-1."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return None

    @property
    def app_id(self) -> str | None:
        """The app id of the address's query. HQ sends the text `None` for a form without one."""
        app_id = parse_qs(self.query).get("app_id", [""])[0]
        return app_id if app_id not in ("", "None") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a request was sent to. `query` holds only what may be stored, URL-encoded."""

    domain: str
    label: str
    method: str
    path: str
    query: str


def captured_headers(
    event_id: str, event_time: str, address: Address, request: Iterable[tuple[str, bytes]]
) -> list[tuple[str, bytes]]:
    """Return the headers of a captured record; `request` are the request's, already screened."""
    return [
        *_fixed_headers(address),
        ("ce_id", event_id.encode()),
        ("ce_time", event_time.encode()),
        *request,
    ]


@lru_cache(maxsize=1024)
def _fixed_headers(address: Address) -> Sequence[tuple[str, bytes]]:
    """Return the headers that every event sent to an address has."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_source", f"/commcare/{address.domain}".encode()),
        ("ce_type", FORWARDED.encode()),
        ("casewire-domain", address.domain.encode()),
        ("casewire-method", address.method.encode()),
        ("casewire-path", address.path.encode()),
        ("casewire-origin", b"live"),
    ]
    if address.label:
        headers.append(("casewire-label", address.label.encode()))
    if address.query:
        headers.append(("casewire-query", address.query.encode()))
    return headers


_REPLACED: Final = frozenset(
    {
        "ce_id",
        "ce_type",
        "ce_subject",
        "content-type",
        "content-encoding",  # what is derived is not compressed any more
        "casewire-captured-id",
        "casewire-schema",
        "casewire-target",  # a replay is one of the record itself, not of what is derived from it
        "casewire-attempts",
    }
)


def derived_headers(
    headers: Headers, *, event_id: str, captured_id: str, event_type: str, subject: str, schema: str
) -> list[tuple[str, bytes]]:
    """Return the headers of a record derived from one with `headers`.

    `event_id` is `<captured id>/<stage>/<ordinal>`, so that work done twice makes the same id.
    `ce_time`, `received-on`, `server-modified-on` and all else stay as they are.
    """
    derived = [
        ("ce_id", event_id.encode()),
        ("ce_type", event_type.encode()),
        ("ce_subject", subject.encode()),
        ("content-type", b"application/json"),
        ("casewire-captured-id", captured_id.encode()),
        ("casewire-schema", schema.encode()),
    ]
    derived += [item for item in headers if item[0] not in _REPLACED]
    sent = dict(headers)
    if "content-type" in sent and "casewire-content-type" not in sent:
        derived.append(("casewire-content-type", sent["content-type"]))
    return derived
