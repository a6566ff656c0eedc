"""The sender: posts as CommCare HQ does (`casewire.hq`), and `casewire send`."""

import asyncio
import contextlib
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Self, TextIO, TypeAlias, TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
import click
import orjson
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from casewire.guess import guessed
from casewire.hq import (
    Failure,
    Generation,
    Request,
    address,
    basic,
    redirected,
    verdict,
    wait_before,
    wire_headers,
)
from schemas.errors import ConfigError, UnavailableError

Outcome: TypeAlias = Literal["success", "empty", "rejected", "cancelled"]

#: Hours of HQ's schedule become seconds.
HOURS_AS_SECONDS: Final = 1 / 3600

DEFAULT_ADDRESS: Final = "http://127.0.0.1:8080/api/v1/in/demo"

_MOST_REDIRECTS: Final = 30
_SECONDS_BETWEEN_LINES: Final = 60
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


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
        return f"{head} after {self.sends} sends: {self.answer.text.strip()}"


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
    headers = [options.credentials] if options.credentials else []
    try:
        async with _client(options) as client, client.get(to, headers=headers) as response:
            status = response.status
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnavailableError(
            f"nothing answers at {to} ({_said(error)}); start casewire up, or correct --to"
        ) from error
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
            method,
            url,
            data=body or None,
            headers=headers,
            skip_auto_headers=("Content-Type",),
            allow_redirects=False,
        ) as response:
            text = (await response.content.read(2000)).decode(errors="replace")
            place = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or place is None:
                return Answer(response.status, text)
        target = urljoin(url, place)
        method = redirected(method, response.status)
        if response.status not in (307, 308):
            body = b""
            headers = [header for header in headers if header[0] != "Content-Type"]
        if urlsplit(target)[:2] != urlsplit(url)[:2]:
            headers = [header for header in headers if header != options.credentials]
        url = target
    raise ValueError(f"exceeded {_MOST_REDIRECTS} redirects")


@contextlib.contextmanager
def shown_progress(
    total: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[Result], None]]:
    """Show how many requests are done: a bar on a terminal, else a line a minute.

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

    def count(_: Result) -> None:
        nonlocal done, said_at
        done += 1
        now = clock()
        if now - said_at >= _SECONDS_BETWEEN_LINES:
            said_at = now
            click.echo(f"sent {done} of {total}", file=stream)

    yield count


Command = TypeVar("Command", bound=Callable[..., Any])


def target_options(command: Command) -> Command:
    """Add the options that say where to post and as whom; `Target` takes them."""
    for option in reversed(
        (
            click.option("--to", default=DEFAULT_ADDRESS, show_default=True, help="The address."),
            click.option("--user", default="", help="User name for HTTP Basic."),
            click.option("--password-file", type=_FILE, help="File with the password for --user."),
            click.option("--api-key-file", type=_FILE, help="File with an API key, sent verbatim."),
            click.option("--api-key-header", default="Authorization", show_default=True),
            click.option("--generation", type=click.Choice(["A", "B"]), default="B",
                         show_default=True, help="HQ's rules for answers: A until March 2025."),
            click.option("--scale", type=click.FloatRange(0), default=HOURS_AS_SECONDS,
                         help="Factor on HQ's waits; the default makes an hour a second."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The values of `target_options`."""

    to: str
    user: str
    password_file: Path | None
    api_key_file: Path | None
    api_key_header: str
    generation: Generation
    scale: float

    @classmethod
    def chosen(cls, values: Mapping[str, Any]) -> Self:
        """Take what is ours of a command's values."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})

    def options(self) -> Options:
        """Raise click.UsageError if only one of user and password is given."""
        if bool(self.user) != bool(self.password_file):
            raise click.UsageError("give --user and --password-file together")
        credentials = None
        if self.password_file:
            credentials = basic(self.user, _secret(self.password_file))
        if self.api_key_file:
            credentials = (self.api_key_header, _secret(self.api_key_file))
        return Options(generation=self.generation, scale=self.scale, credentials=credentials)


def _secret(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as a secret; write it as UTF-8 text") from error


@click.command(
    epilog="Example: casewire send case.json form.xml --received-on 2026-11-22T10:00:00.000000Z"
)
@click.argument("files", nargs=-1, required=True, type=_FILE)
@target_options
@click.option("--header", "headers", multiple=True, help="A header to add, as NAME:VALUE.")
@click.option("--app-id", default="", help="The app id in the address of forms.")
@click.option("--received-on", default="", help="The header of forms that do not say it.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_context
def send(context: click.Context, /, **chosen: Any) -> None:
    """Post files as CommCare HQ would, with its headers, retries and waits.

    What a file is, and so its headers, is told from its content. Exits with 1 if one was not
    delivered.
    """
    target = Target.chosen(chosen)
    extra = [_header(text) for text in chosen["headers"]]
    requests = [
        replace(request, headers=(*request.headers, *extra))
        for request in (
            guessed(
                file.name, _body(file), app_id=chosen["app_id"], received_on=chosen["received_on"]
            )
            for file in chosen["files"]
        )
    ]
    with shown_progress(len(requests)) as progress:
        work = forward_all(requests, target.to, options=target.options(), progress=progress)
        report = asyncio.run(work)
    if chosen["as_json"]:
        click.echo(orjson.dumps([result.to_dict() for result in report.results]))
    else:
        for result in report.results:
            click.echo(str(result))
    context.exit(1 if report.failed else 0)


def _body(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}); correct that") from error


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"{text!r} is no header; write --header NAME:VALUE")
    return name.strip(), value.strip()
