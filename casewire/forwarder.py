"""The sender: posts as CommCare HQ does (`casewire.hq`), and tries again when HQ would."""

import asyncio
import contextlib
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TextIO, TypeAlias

import aiohttp
import click
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from casewire.hq import Failure, Generation, Request, address, verdict, wait_before
from casewire.hq_logins import Login
from casewire.wire import post, try_connection
from schemas.errors import UnavailableError

Outcome: TypeAlias = Literal["success", "empty", "rejected", "cancelled"]

#: Hours of HQ's schedule become seconds.
HOURS_AS_SECONDS: Final = 1 / 3600

_SECONDS_BETWEEN_LINES: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How HQ is set up. `scale` shortens the waits between sends: 1 is HQ's own pace.

    Timeouts are in seconds.
    """

    generation: Generation = "B"
    scale: float = HOURS_AS_SECONDS
    login: Login | None = None
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

    def to_dict(self) -> dict[str, str | int | None]:
        return {
            "subject": self.request.subject,
            "kind": self.request.kind,
            "outcome": self.outcome,
            "sends": self.sends,
            "status": self.answer.status,
            "answer": self.answer.text,
        }

    def __str__(self) -> str:
        said = "no answer" if self.answer.status is None else f"HTTP {self.answer.status}"
        head = f"{self.request.subject} ({self.request.kind}): {self.outcome}, {said}"
        sends = "1 send" if self.sends == 1 else f"{self.sends} sends"
        return f"{head} after {sends}: {self.answer.text.strip()}"


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

    async with _client(options) as client, asyncio.TaskGroup() as tasks:
        for request in requests:
            await free.acquire()
            tasks.create_task(carry(client, request))
    return Report(results)


async def require_answer(to: str, options: Options) -> None:
    """Get the address `to` as HQ's "Test connection" does (protocol.md §4).

    Raises UnavailableError if nothing answers there, or if it refuses the credentials.
    """
    try:
        async with _client(options) as client:
            status = (await try_connection(client, to, options.login)).status
    except (aiohttp.ClientConnectionError, TimeoutError) as error:
        raise UnavailableError(
            f"nothing answers at {to} ({_said(error)}); start casewire up, or correct --to"
        ) from error
    except (aiohttp.ClientError, ValueError) as error:
        raise UnavailableError(f"{_said(error)}; correct --to, or how --user logs in") from error
    if status in (401, 403):
        raise UnavailableError(
            f"{to} refuses these credentials (HTTP {status}); give --user and --password-file"
        )


def _client(options: Options) -> aiohttp.ClientSession:
    """Return a client that opens a connection for each payload."""
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=options.connect_timeout, sock_read=options.read_timeout
    )
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    return aiohttp.ClientSession(connector=connector, timeout=timeout)


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
        reply = await post(client, address(to, request), request, options.login)
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
        return Answer(None, _said(error))
    except (aiohttp.ClientError, ssl.SSLError, ValueError) as error:
        return Answer(None, _said(error), "exception")
    return Answer(reply.status, reply.text)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


@contextlib.contextmanager
def shown_progress(
    total: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[object], None]]:
    """Show how many are done, one more at each call: a bar on a terminal, else a line a minute.

    `stream` is stderr if not given; `clock` returns seconds.
    """
    stream = stream or sys.stderr
    if stream.isatty():
        columns = (*Progress.get_default_columns()[:3], MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(file=stream)) as bar:
            task = bar.add_task("Sending", total=total)
            yield lambda _: bar.advance(task)
        return
    done = 0
    said_at = clock()

    def count(_: object) -> None:
        nonlocal done, said_at
        done += 1
        now = clock()
        if now - said_at >= _SECONDS_BETWEEN_LINES:
            said_at = now
            click.echo(f"sent {done} of {total}", file=stream)

    yield count
