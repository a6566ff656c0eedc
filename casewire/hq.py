"""How CommCare HQ posts, and what it makes of an answer: pure rules.

Sources: protocol.md §1.0 (what `requests` sends), §3 (answers, schedule). Logins: `hq_logins`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from casewire.hq_logins import Header
from schemas.errors import Cause

Verdict: TypeAlias = Literal["success", "empty", "retry", "rejected"]
Generation: TypeAlias = Literal["A", "B"]
Failure: TypeAlias = Literal["answer", "exception"]

#: Answers after which generation B tries again; every other 4xx and 5xx is a rejection (§3.1).
_RETRIED_BY_B: Final = frozenset({429, 500, 502, 503, 504})
#: Answers that generation A takes for an invalid payload; it tries again after any other.
_REJECTED_BY_A: Final = frozenset(
    {401, 402, 403, 405, 406, 410, 411, 413, 414, 415, 416, 417, 418, 421, 422, 431, 451}
)

#: Waits before the second and every later send, in seconds: 1, 3, 9, 27 and 81 hours (§3.3).
WAITS: Final = tuple(3600 * 3**power for power in range(5))
#: How many sends there are at most, by what failed the first time (§3.3).
SENDS: Final[dict[Failure, int]] = {"answer": 6, "exception": 3}
_USER_AGENT: Final = "python-requests/2.32.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One payload as HQ posts it.

    `kind` says what it is and `subject` its id, for people; `headers` are HQ's own beside those
    that every request has; `label` is appended to the address's path; `cause` is that of the dead
    letter it deserves, None for a good one.
    """

    kind: str
    body: bytes
    content_type: str
    headers: Sequence[Header] = ()
    query: str = ""
    label: str = ""
    method: str = "POST"
    subject: str = ""
    cause: Cause | None = None


def verdict(status: int, generation: Generation = "B") -> Verdict:
    """Return what HQ makes of an answer's status, redirects followed (protocol.md §3.1)."""
    if status == 204:
        return "empty"
    if 200 <= status < 300:
        return "success"
    if status < 400:
        return "rejected"
    if generation == "A":
        return "rejected" if status in _REJECTED_BY_A else "retry"
    return "retry" if status in _RETRIED_BY_B else "rejected"


def wait_before(sends: int, failure: Failure) -> int | None:
    """Return the seconds to wait after so many failed sends, None when HQ gives up (§3.3)."""
    return WAITS[sends - 1] if sends < SENDS[failure] else None


def redirected(method: str, status: int) -> str:
    """Return the method with which requests follows a redirect.

    303 and 302 make a GET of anything but HEAD, 301 of a POST only. Only 307 and 308 keep the body,
    whatever the method.
    """
    if method != "HEAD" and (status in (302, 303) or (status == 301 and method == "POST")):
        return "GET"
    return method


def address(to: str, request: Request) -> str:
    """Return where a request goes: the label on the path, the query at the end."""
    parts = urlsplit(to)
    path = f"{parts.path.rstrip('/')}/{request.label}" if request.label else parts.path
    query = "&".join(part for part in (parts.query, request.query) if part)
    return parts._replace(path=path, query=query).geturl()


def wire_headers(request: Request, credentials: Header | None, accept: str = "*/*") -> list[Header]:
    """Return the headers that go out, `Host` and `Content-Length` apart (§1.0)."""
    return [
        ("User-Agent", _USER_AGENT),
        ("Accept-Encoding", "gzip, deflate"),
        ("Accept", accept),
        ("Connection", "keep-alive"),
        ("Content-Type", request.content_type),
        *request.headers,
        *([credentials] if credentials else []),
    ]
