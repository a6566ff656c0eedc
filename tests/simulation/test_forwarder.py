"""The sender against a real server."""

import asyncio
import contextlib
import io
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from casewire.cli import run
from casewire.forwarder import (
    Answer,
    Options,
    Report,
    Result,
    forward_all,
    require_answer,
    shown_progress,
)
from casewire.guess import guessed
from casewire.hq import Request
from casewire.hq_logins import basic, bearer
from schemas.errors import UnavailableError

pytestmark = pytest.mark.anyio

SAMPLES = Path(__file__).parent.parent / "fixtures" / "hq"
QUICK = Options(scale=0, read_timeout=5)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/api/v1/in/demo"
    finally:
        await runner.cleanup()


def request(number: int = 0) -> Request:
    return Request(
        kind="case_json",
        body=f'{{"number": {number}}}'.encode(),
        content_type="application/json",
        headers=(("server-modified-on", "2026-11-22T10:00:00.000000Z"),),
        subject=str(number),
    )


async def sent(to: str, options: Options = QUICK) -> Report:
    return await forward_all([request()], to, options=options)


async def test_a_request_looks_like_one_of_hq_on_the_wire() -> None:
    heads: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.put_nowait(await reader.readuntil(b"\r\n\r\n"))
        await reader.readexactly(len(request().body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert await reader.read() == b""
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        options = Options(login=basic("hq", "secret"))
        to = f"http://127.0.0.1:{port}/api/v1/in/demo"
        report = await forward_all([request(), request()], to, workers=1, options=options)
    assert [result.outcome for result in report.results] == ["success", "success"]
    assert heads.qsize() == 2, "one connection carries one payload"
    start, *headers = heads.get_nowait().decode().split("\r\n")[:-2]
    assert start == "POST /api/v1/in/demo HTTP/1.1"
    assert headers == [
        f"Host: 127.0.0.1:{port}",
        "User-Agent: python-requests/2.32.3",
        "Accept-Encoding: gzip, deflate",
        "Accept: */*",
        "Connection: keep-alive",
        "Content-Type: application/json",
        "server-modified-on: 2026-11-22T10:00:00.000000Z",
        "Authorization: Basic aHE6c2VjcmV0",
        "Content-Length: 13",
    ]


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        ([200], "success"),
        ([204], "empty"),
        ([404], "rejected"),
        ([503, 429, 202], "success"),
        ([503] * 6, "cancelled"),
    ],
)
async def test_an_answer_has_the_end_that_hq_gives_it(
    statuses: Sequence[int], outcome: str
) -> None:
    answers = iter(statuses)

    async def handle(_: web.BaseRequest) -> web.Response:
        return web.Response(status=next(answers))

    async with serving(handle) as to:
        (result,) = (await sent(to)).results
    assert (result.outcome, result.sends) == (outcome, len(statuses))
    assert list(answers) == []


@pytest.mark.parametrize(
    ("status", "method", "body"), [(302, "GET", b""), (307, "POST", request().body)]
)
async def test_a_redirect_is_followed_as_requests_does(
    status: int, method: str, body: bytes
) -> None:
    arrived = []

    async def handle(got: web.BaseRequest) -> web.Response:
        if got.path.endswith("/new"):
            arrived.append((got.method, await got.read(), "Content-Type" in got.headers))
            return web.Response()
        return web.Response(status=status, headers={"Location": f"{got.path}/new"})

    async with serving(handle) as to:
        report = await sent(to)
    assert report.results[0].outcome == "success"
    assert arrived == [(method, body, bool(body))]


async def test_credentials_do_not_go_to_another_host() -> None:
    arrived = []

    async def other(got: web.BaseRequest) -> web.Response:
        arrived.append("Authorization" in got.headers)
        return web.Response()

    async with serving(other) as elsewhere:

        async def handle(got: web.BaseRequest) -> web.Response:
            arrived.append("Authorization" in got.headers)
            return web.Response(status=307, headers={"Location": elsewhere})

        async with serving(handle) as to:
            await sent(to, Options(scale=0, login=basic("hq", "secret")))
    assert arrived == [True, False]


async def test_endless_redirects_are_given_up_after_three_sends() -> None:
    async def handle(got: web.BaseRequest) -> web.Response:
        return web.Response(status=307, headers={"Location": got.path})

    async with serving(handle) as to:
        (result,) = (await sent(to)).results
    assert (result.outcome, result.sends) == ("cancelled", 3)


async def test_a_server_that_does_not_answer_in_time_is_tried_again() -> None:
    tries = 0

    async def handle(_: web.BaseRequest) -> web.Response:
        nonlocal tries
        tries += 1
        if tries == 1:
            await asyncio.Event().wait()
        return web.Response()

    async with serving(handle) as to:
        (result,) = (await sent(to, Options(scale=0, read_timeout=0.2))).results
    assert (result.outcome, result.sends) == ("success", 2)


async def test_a_server_that_is_down_is_given_up_after_six_sends() -> None:
    async with serving(_ok) as to:
        pass
    (result,) = (await sent(to)).results
    assert (result.outcome, result.sends, result.answer.status) == ("cancelled", 6, None)


async def test_no_more_than_the_workers_send_at_once_and_one_keeps_the_order() -> None:
    running = most = 0
    order = []

    async def handle(got: web.BaseRequest) -> web.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(await got.read())
        await asyncio.sleep(0)
        running -= 1
        return web.Response()

    requests = [request(number) for number in range(40)]
    async with serving(handle) as to:
        await forward_all(requests, to, workers=3)
        assert most <= 3
        order.clear()
        await forward_all(requests, to, workers=1)
    assert order == [each.body for each in requests]


async def test_progress_hears_of_every_result() -> None:
    seen: list[Result] = []
    async with serving(_ok) as to:
        report = await forward_all([request(1), request(2)], to, progress=seen.append)
    assert seen == report.results
    assert report.counts() == {"case_json": 2}


RESULT = Result(request(), "success", 1, Answer(200, ""))


def test_progress_is_a_line_a_minute_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    clock = itertools.count(step=20).__next__
    with shown_progress(9, stream, clock) as progress:
        for _ in range(9):
            progress(RESULT)
    assert stream.getvalue().splitlines() == ["sent 3 of 9", "sent 6 of 9", "sent 9 of 9"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal() -> None:
    stream = Terminal()
    with shown_progress(2, stream) as progress:
        progress(RESULT)
        progress(RESULT)
    assert "2/2" in stream.getvalue()


async def _ok(_: web.BaseRequest) -> web.Response:
    return web.Response(text='{"id": "1", "stored": "kafka"}')


async def test_an_address_without_server_or_with_other_credentials_is_an_error() -> None:
    async def refuse(_: web.BaseRequest) -> web.Response:
        return web.Response(status=401)

    async with serving(_ok) as to:
        await require_answer(to, QUICK)
    with pytest.raises(UnavailableError, match="nothing answers"):
        await require_answer(to, QUICK)
    async with serving(refuse) as to:
        with pytest.raises(UnavailableError, match="credentials"):
            await require_answer(to, QUICK)
        with pytest.raises(UnavailableError, match=r"no token .* HTTP 401"):
            await require_answer(to, replace(QUICK, login=bearer(to, "hq", "secret")))


@pytest.mark.parametrize(
    ("sample", "kind", "content_type", "headers", "query"),
    [
        ("case_json_current_open.json", "case", "application/json",
         {"server-modified-on": "2020-03-19T14:31:35.139959Z"}, ""),
        ("case_xml_v2_full.xml", "case", "text/xml", {}, ""),
        ("form_json_full.json", "form", "application/json",
         {"received-on": "2016-11-29T14:50:42.530616Z"}, "app_id=effb341b"),
        ("form_xml_no_case.xml", "form", "text/xml", {"received-on": "later"}, "app_id=None"),
        ("form_stub.json", "form_stub", "application/json",
         {"received-on": "2015-04-17T20:14:34.046462Z"}, ""),
        ("app_structure_body.txt", "other", "text/xml", {}, ""),
        ("user.json", "other", "application/json", {}, ""),
    ],
)  # fmt: skip
def test_a_file_goes_as_hq_would_send_it(
    sample: str, kind: str, content_type: str, headers: dict[str, str], query: str
) -> None:
    said = "later" if sample.endswith(".xml") else ""
    got = guessed(sample, (SAMPLES / sample).read_bytes(), app_id="", received_on=said)
    assert (got.kind, got.content_type, dict(got.headers), got.query) == (
        kind, content_type, headers, query,
    )  # fmt: skip


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (413, 1)])
async def test_send_exits_with_1_if_a_file_was_refused(
    status: int, exit_status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def handle(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, text="said so")

    async with serving(handle) as to:
        command = ["send", str(SAMPLES / "user.json"), "--to", to]
        assert await asyncio.to_thread(run, command, {}) == exit_status
    assert f"HTTP {status} after 1 send: said so" in capsys.readouterr().out


async def test_simulate_sends_a_project_and_writes_its_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bodies = []

    async def handle(got: web.BaseRequest) -> web.Response:
        if got.method == "POST":
            bodies.append(await got.read())
        return web.Response()

    options = ["--cases", "5", "--changes", "20", "--end", "2026-11-22T10:00:00Z"]
    async with serving(handle) as to:
        truth = ["--truth", str(tmp_path / "truth.json")]
        command = ["simulate", "--to", to, *options, *truth, "--workers", "1"]
        assert await asyncio.to_thread(run, command, {}) == 0
    folder = tmp_path / "out"
    assert run(["simulate", "--out", str(folder), *options], {}) == 0
    files = sorted(folder.glob("0*"))
    assert [file.read_bytes() for file in files] == bodies
    assert (tmp_path / "truth.json").exists()
    assert f"{len(files):7}  in all; 5 cases" in capsys.readouterr().out


@pytest.mark.parametrize("as_json", [True, False])
async def test_simulate_says_what_was_not_delivered(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    async def handle(got: web.BaseRequest) -> web.Response:
        return web.Response(status=413 if got.method == "POST" else 200)

    async with serving(handle) as to:
        command = ["simulate", "--to", to, "--cases", "1", "--changes", "1", "--in-order"]
        options = ["--broken", "0", *(["--json"] if as_json else [])]
        assert await asyncio.to_thread(run, [*command, *options], {}) == 1
    printed = capsys.readouterr().out
    if as_json:
        told = orjson.loads(printed)
        assert (told["sent"], told["cases"]) == ({}, 1)
        assert told["failed"] > 0
    else:
        assert "not delivered" in printed


def test_an_address_without_a_project_space_is_wrong_usage() -> None:
    assert run(["simulate", "--to", "http://127.0.0.1:1/"], {}) == 2


@pytest.mark.parametrize("header", ["no colon", ": no name"])
def test_a_header_without_name_is_wrong_usage(header: str) -> None:
    assert run(["send", str(SAMPLES / "user.json"), "--header", header], {}) == 2


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"{", "broken"), (b"<case", "broken"), (b"[1]", "custom"), (b"193b28e5", "other")],
)
def test_a_file_that_is_nothing_known_goes_all_the_same(body: bytes, kind: str) -> None:
    got = guessed("file", body, app_id="", received_on="")
    assert (got.kind, got.body) == (kind, body)


async def test_send_adds_credentials_and_headers_and_prints_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrived = []

    async def handle(got: web.BaseRequest) -> web.Response:
        arrived.append((got.headers["Authorization"], got.headers["x-own"]))
        return web.Response()

    secret = tmp_path / "secret"
    secret.write_text("ApiKey abc\n")
    file = str(SAMPLES / "user.json")
    async with serving(handle) as to:
        command = ["send", file, "--to", to, "--header", "x-own: 1", "--json"]
        key = ["--api-key-file", str(secret)]
        assert await asyncio.to_thread(run, [*command, *key], {}) == 0
        secret.write_text("secret\n")
        password = ["--user", "hq", "--password-file", str(secret)]
        assert await asyncio.to_thread(run, [*command, *password], {}) == 0
    assert arrived == [("ApiKey abc", "1"), ("Basic aHE6c2VjcmV0", "1")]
    printed = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [result["outcome"] for (result,) in printed] == ["success", "success"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--user", "hq"], "--password-file together"),
        (["--auth", "digest"], "--auth digest needs --user"),
        (["--user", "hq", "--password-file", "S", "--api-key-file", "S"], "not both"),
        (
            ["--user", "hq", "--password-file", "S", "--auth", "bearer", "--to", "http://h/"],
            "/api/v1/",
        ),
    ],
)
def test_a_login_that_does_not_fit_together_is_wrong_usage(
    options: Sequence[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    filled = [str(secret) if option == "S" else option for option in options]
    assert run(["send", str(SAMPLES / "user.json"), *filled], {}) == 2
    assert said in capsys.readouterr().err
