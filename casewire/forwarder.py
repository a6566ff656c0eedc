"""CommCare HQ's way of posting: one connection a payload, its headers, its retries.

Sources: protocol.md §1.0 (requests), §3 (what becomes of an answer, schedule, parallelism).
"""

import asyncio
import base64
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import urljoin, urlsplit

import aiohttp

from schemas.errors import Cause

Verdict: TypeAlias = Literal["success", "empty", "retry", "rejected"]
Outcome: TypeAlias = Literal["success", "empty", "rejected", "cancelled"]
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
#: Hours of HQ's schedule become seconds.
HOURS_AS_SECONDS: Final = 1 / 3600

_MOST_REDIRECTS: Final = 30
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
    headers: Sequence[tuple[str, str]] = ()
    query: str = ""
    label: str = ""
    method: str = "POST"
    subject: str = ""
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How HQ is set up. `scale` shortens the waits between sends: 1 is HQ's own pace.

    `credentials` is a header's name and value (`basic`, or an API key). Timeouts are in seconds.
    """

    generation: Generation = "B"
    scale: float = HOURS_AS_SECONDS
    credentials: tuple[str, str] | None = None
    connect_timeout: float = 60
    read_timeout: float = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: a status, or the exception's text; `text` is an answer's beginning."""

    status: int | None
    text: str
    failure: Failure = "answer"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a request in the end, after how many sends, and the last answer."""

    request: Request
    outcome: Outcome
    sends: int
    answer: Answer

    @property
    def delivered(self) -> bool:
        return self.outcome in ("success", "empty")


@dataclass(frozen=True, slots=True)
class Report:
    """All results, in the order in which they were had."""

    results: Sequence[Result] = field(default_factory=list)

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if not result.delivered]

    def counts(self) -> dict[str, int]:
        """Return how many requests of each kind were delivered."""
        return dict(Counter(each.request.kind for each in self.results if each.delivered))


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
    """Return the method with which requests follows a redirect; `GET` goes without a body.

    303 and 302 make a GET of anything but HEAD, 301 of a POST only; 307 and 308 keep all.
    """
    if method != "HEAD" and (status in (302, 303) or (status == 301 and method == "POST")):
        return "GET"
    return method


def basic(username: str, password: str) -> tuple[str, str]:
    """Return HTTP Basic credentials as requests encodes them: latin-1, else UTF-8 (§2)."""
    text = f"{username}:{password}"
    try:
        raw = text.encode("latin-1")
    except UnicodeEncodeError:
        raw = text.encode()
    return "Authorization", f"Basic {base64.b64encode(raw).decode()}"


def address(to: str, request: Request) -> str:
    """Return where a request goes: the label on the path, the query at the end."""
    parts = urlsplit(to)
    path = f"{parts.path.rstrip('/')}/{request.label}" if request.label else parts.path
    query = "&".join(part for part in (parts.query, request.query) if part)
    return parts._replace(path=path, query=query).geturl()


def wire_headers(request: Request, credentials: tuple[str, str] | None) -> list[tuple[str, str]]:
    """Return the headers that go out, `Host` and `Content-Length` apart (§1.0)."""
    return [
        ("User-Agent", _USER_AGENT),
        ("Accept-Encoding", "gzip, deflate"),
        ("Accept", "*/*"),
        ("Connection", "keep-alive"),
        ("Content-Type", request.content_type),
        *request.headers,
        *([credentials] if credentials else []),
    ]


async def forward_all(
    requests: Iterable[Request],
    to: str,
    *,
    workers: int = 7,
    options: Options | None = None,
    progress: Callable[[Result], None] | None = None,
) -> Report:
    """Post requests to the address `to` (`http://…/api/v1/in/DOMAIN`), at most `workers` at once.

    First sends begin in the given order; one worker keeps it. A request that must be tried again
    waits without keeping a worker. `progress` is called with each result.
    """
    options = options or Options()
    results: list[Result] = []
    free = asyncio.Semaphore(workers)

    async def carry(client: aiohttp.ClientSession, request: Request) -> None:
        sends = 0
        while True:
            try:
                answer = await _send(client, to, request, options)
            finally:
                free.release()
            sends += 1
            wait, outcome = _next_step(answer, sends, options.generation)
            if wait is None:
                break
            await asyncio.sleep(wait * options.scale)
            await free.acquire()
        result = Result(request, outcome, sends, answer)
        results.append(result)
        if progress:
            progress(result)

    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=options.connect_timeout, sock_read=options.read_timeout
    )
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as client,
        asyncio.TaskGroup() as tasks,
    ):
        for request in requests:
            await free.acquire()
            tasks.create_task(carry(client, request))
    return Report(results)


def _next_step(answer: Answer, sends: int, generation: Generation) -> tuple[int | None, Outcome]:
    """Return the seconds to wait for the next send, or None and how it ended."""
    judged = "retry" if answer.status is None else verdict(answer.status, generation)
    if judged != "retry":
        return None, judged
    return wait_before(sends, answer.failure), "cancelled"


async def _send(
    client: aiohttp.ClientSession, to: str, request: Request, options: Options
) -> Answer:
    """Send once. Connection and time-out errors count as answers, others as exceptions (§3.3)."""
    try:
        return await _follow(client, address(to, request), request, options)
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
        return Answer(None, _said(error))
    except (aiohttp.ClientError, ssl.SSLError, ValueError) as error:
        return Answer(None, _said(error), "exception")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _follow(
    client: aiohttp.ClientSession, url: str, request: Request, options: Options
) -> Answer:
    """Send, and go where redirects lead as requests does.

    A redirect to another origin goes without credentials. Raises ValueError after 30 redirects.
    """
    method, body = request.method, request.body
    headers = wire_headers(request, options.credentials)
    for _ in range(_MOST_REDIRECTS + 1):
        async with client.request(
            method, url, data=body, headers=headers, allow_redirects=False
        ) as response:
            text = (await response.content.read(2000)).decode(errors="replace")
            place = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or place is None:
                return Answer(response.status, text)
        target = urljoin(url, place)
        if redirected(method, response.status) != method:
            method, body = "GET", b""
            headers = [header for header in headers if header[0] != "Content-Type"]
        if urlsplit(target)[:2] != urlsplit(url)[:2]:
            headers = [header for header in headers if header != options.credentials]
        url = target
    raise ValueError(f"exceeded {_MOST_REDIRECTS} redirects")
