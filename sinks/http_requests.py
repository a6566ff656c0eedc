"""What is asked of an HTTP target, and what its answer means (pure).

The request is the one that CommCare HQ would have sent (protocol.md §1.0, §1.1): its JSON, its
content type, its header with the time, its `app_id`. What Casewire knows beside that is in headers
of its own. The answers are judged by who can mend it: time, the operator, or nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http.client import responses
from typing import Final

import orjson

from schemas.as_sent import as_sent, own_values
from schemas.errors import Cause, Rejection, TargetError, TransientError
from schemas.values import Json
from sinks.base import Message, Result

#: What a target said is kept up to here.
LONGEST_WORDS: Final = 2000
LONGEST_RETRY_AFTER: Final = 3600.0

#: By kind: HQ's header, and the key of the time that it holds.
_TIMES: Final = {
    "case": ("server-modified-on", "server_date_modified"),
    "form": ("received-on", "received_on"),
}
_HEADER_NAMES: Final = {"state_version": "version"}

#: 402: OpenFn's, when the runs that were paid for are used up.
_TRANSIENT: Final = frozenset({402, 408, 425, 429})
_REMEDIES: Final[Mapping[int, str]] = {
    401: "check how the sink logs in",
    403: "check what the sink's credentials may do",
    404: "check the sink's url",
    405: "check the sink's method",
    407: "check the proxy before it",
    410: "check the sink's url",
    421: "check the sink's url",
}
_CAUSES: Final[Mapping[int, Cause]] = {409: "conflict", 413: "too_large"}


@dataclass(frozen=True, slots=True)
class Answer:
    """`words` is the beginning of the body, `retry_after` the header as it came."""

    status: int
    retry_after: str = ""
    words: bytes = b""


def body_of(message: Message) -> bytes:
    """Return the JSON that HQ would have sent."""
    return orjson.dumps(as_sent(message.value, message.kind))


def headers_of(message: Message) -> dict[str, str]:
    """Return HQ's headers and ours.

    `idempotency-key` is the event's id, the same whenever it is sent again.
    """
    headers = {"content-type": "application/json", "idempotency-key": _event_id(message)}
    if origin := _first(message, "casewire-origin"):
        headers["casewire-origin"] = origin
    name, key = _TIMES[message.kind]
    if time := message.value.get(key):
        headers[name] = time
    for key, value in own_values(message.value, message.kind).items():
        name = _HEADER_NAMES.get(key, key).replace("_", "-")
        headers[f"casewire-{name}"] = _header_text(value)
    return headers


def judged(answer: Answer, place: str, now: datetime) -> Result:
    """Return how a message ended, by the answer of `place`.

    Raises TargetError for what only the operator can mend.
    """
    status = answer.status
    if 200 <= status < 300:
        return "written"
    said = f"{status} {responses.get(status, '')}".rstrip()
    if status >= 500 or status in _TRANSIENT:
        wait = seconds_of(answer.retry_after, now)
        return TransientError(f"{place} answers {said}", retry_after=wait)
    if status < 400:
        raise TargetError(f"{place} answers {said}, a redirect: write where it leads as url")
    if status in _REMEDIES:
        raise TargetError(f"{place} answers {said}: {_REMEDIES[status]}")
    return Rejection(
        _CAUSES.get(status, "rejected_by_target"),
        f"the target answers {said}",
        target_error=answer.words.decode("utf-8", "replace")[:LONGEST_WORDS],
    )


def seconds_of(retry_after: str, now: datetime) -> float:
    """Return how long a `Retry-After` asks to wait (RFC 9110 §10.2.3), 0 if it does not say.

    An hour at most: to ask again after that harms nobody, and a clock may be wrong.
    """
    if retry_after.isascii() and retry_after.isdigit():
        seconds = float(retry_after)
    else:
        try:
            seconds = (parsedate_to_datetime(retry_after) - now).total_seconds()
        except (TypeError, ValueError):
            seconds = 0
    return min(max(seconds, 0), LONGEST_RETRY_AFTER)


def _event_id(message: Message) -> str:
    place = f"{message.source}/{message.partition}/{message.offset}"
    return _first(message, "ce_id") or place


def _first(message: Message, name: str) -> str:
    """Return a record's first header of that name, empty if it has none."""
    values = (value.decode("latin-1") for other, value in message.headers if other == name)
    return next(values, "")


def _header_text(value: Json) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
