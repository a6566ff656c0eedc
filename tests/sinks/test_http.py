"""The connector `http`, against a real server."""

import asyncio
import ssl
from base64 import b64encode
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import orjson
import pytest
from aiohttp import web
from hypothesis import given, settings, strategies as st

from schemas.errors import Rejection, TargetError, TransientError
from schemas.values import Json
from sinks.base import Message
from sinks.http_client import new_session
from sinks.http_login import Tokens
from sinks.http_requests import LONGEST_RETRY_AFTER, LONGEST_WORDS, Answer, judged, seconds_of
from sinks.http_settings import HttpSettings
from sinks.http_sink import HttpSink
from sinks.registry import make_sink
from streams.delivery import Delivery
from tests.hq.certificates import make_certificate
from tests.sinks.http_target import (
    Received,
    Target,
    always,
    forwarded,
    many_turns,
    message,
    ok,
    serving,
    sink_to,
)
from tests.streams.made import Made, state

pytestmark = pytest.mark.anyio

SAMPLES = Path(__file__).parents[1] / "fixtures" / "hq"
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("sample", "header", "key"),
    [
        ("case_json_current_open", "server-modified-on", "server_date_modified"),
        ("case_json_current_closed", "server-modified-on", "server_date_modified"),
        ("form_json_full", "received-on", "received_on"),
        ("form_json_edited", "received-on", "received_on"),
    ],
)
@pytest.mark.parametrize("number", [0, 1], ids=["event", "state"])
async def test_a_target_gets_what_hq_would_have_sent(
    sample: str, header: str, key: str, number: int
) -> None:
    body = (SAMPLES / f"{sample}.json").read_bytes()
    sent = orjson.loads(body)
    record = forwarded(body)[number]
    async with serving() as target, sink_to(target) as sink:
        assert (await Delivery("x", sink).deliver([record])).ends == ["written"]
    (received,) = target.received
    assert orjson.loads(received.body) == sent
    assert (received.method, received.path) == ("POST", "/i/inbox")
    assert received.headers["content-type"] == "application/json"
    assert received.headers[header] == sent[key]
    assert received.query == ({"app_id": sent["app_id"]} if "app_id" in sent else {})
    assert received.event.endswith(("/decode/0", "/state/0")[number])


async def test_what_casewire_knows_beside_is_in_headers() -> None:
    body = (SAMPLES / "case_json_current_open.json").read_bytes()
    record = forwarded(body)[1]
    async with serving() as target, sink_to(target, headers={"x-project": "demo"}) as sink:
        await Delivery("x", sink).deliver([record])
    headers = target.received[0].headers
    assert headers["casewire-version"] == dict(record.headers)["casewire-version"].decode()
    assert headers["casewire-captured-id"] == dict(record.headers)["casewire-captured-id"].decode()
    assert headers["casewire-deleted"] == headers["casewire-doubtful"] == "false"
    assert headers["casewire-source"] == "snapshot"
    assert headers["casewire-origin"] == "live"
    assert headers["x-project"] == "demo"


async def test_a_form_that_came_as_xml_goes_as_json() -> None:
    body = (SAMPLES / "form_xml_with_case.xml").read_bytes()
    record = forwarded(body, ("content-type", b"text/xml"))[1]
    async with serving() as target, sink_to(target) as sink:
        await Delivery("x", sink).deliver([record])
    sent = orjson.loads(target.received[0].body)
    assert target.received[0].headers["content-type"] == "application/json"
    assert {"form", "metadata", "received_on"} <= sent.keys()
    assert not {"state_version", "captured_id"} & sent.keys()


async def test_a_case_that_is_gone_goes_as_hq_sends_it_without_forms() -> None:
    version = [("casewire-version", b"7"), ("ce_id", b"e/tombstone/0")]
    null = Made(None, headers=version)
    async with serving() as target, sink_to(target) as sink:
        await Delivery("x", sink).deliver([null])
    (received,) = target.received
    sent = orjson.loads(received.body)
    assert (sent["case_id"], sent["xform_ids"]) == ("c1", [])
    assert "deleted" not in sent
    assert received.headers["casewire-deleted"] == "true"


@pytest.mark.parametrize(
    ("login", "header", "value"),
    [
        ({"auth": "basic", "user": "ä", "secret": "pä:ss"}, "authorization",
         "Basic " + b64encode("ä:pä:ss".encode()).decode()),
        ({"auth": "header", "secret": "k"}, "x-api-key", "k"),
        ({"auth": "header", "secret": "Bearer k", "auth_header": "Authorization"},
         "authorization", "Bearer k"),
    ],
)  # fmt: skip
async def test_credentials_go_with_each_request(
    login: dict[str, Json], header: str, value: str
) -> None:
    async with serving() as target, sink_to(target, **login) as sink:
        await sink.write([message("a"), message("b")])
    assert [received.headers[header] for received in target.received] == [value] * 2


class Login:
    """A token end point, and an inbox that takes its latest token."""

    def __init__(self, lifetime: int | None = 600) -> None:
        self.lifetime = lifetime
        self.tokens = 0
        self.asked: list[Received] = []

    async def __call__(self, received: Received) -> web.StreamResponse:
        if received.path == "/token":
            self.asked.append(received)
            self.tokens += 1
            lifetime = {"expires_in": self.lifetime} if self.lifetime is not None else {}
            return web.json_response({"access_token": f"t{self.tokens}", **lifetime})
        good = received.headers.get("authorization") == f"Bearer t{self.tokens}"
        return web.Response(status=200 if good else 401)

    def settings(self, target: Target, auth: str) -> dict[str, Json]:
        token_url = target.url.replace("/i/inbox", "/token")
        return {"auth": auth, "user": "me", "secret": "s", "token_url": token_url, "scope": "in"}


def oauth(target: Target, login: Login) -> AbstractAsyncContextManager[HttpSink]:
    return sink_to(target, **login.settings(target, "oauth2"))


@pytest.mark.parametrize("auth", ["oauth2", "oauth2-body"])
async def test_one_token_is_fetched_for_many_requests(auth: str) -> None:
    login = Login()
    async with serving(login) as target, sink_to(target, **login.settings(target, auth)) as sink:
        assert await sink.write([message(f"c{n}") for n in range(20)]) == ["written"] * 20
        assert await sink.write([message("a")]) == ["written"]
    (asked,) = login.asked
    body = asked.body.decode()
    assert "grant_type=client_credentials&scope=in" in body
    assert ("client_id=me&client_secret=s" in body) == (auth == "oauth2-body")
    basic = "Basic " + b64encode(b"me:s").decode()
    assert asked.headers.get("authorization") == (basic if auth == "oauth2" else None)


async def test_a_token_that_is_refused_is_fetched_anew_once() -> None:
    login = Login(lifetime=None)
    async with serving(login) as target, oauth(target, login) as sink:
        await sink.write([message("a")])
        login.tokens += 1  # somebody else has one now: ours is not taken any more
        assert await sink.write([message("b"), message("c")]) == ["written"] * 2
        assert len(login.asked) == 2
        target.answer = lambda received: (
            login(received) if received.path == "/token" else always(401)(received)
        )
        with pytest.raises(TargetError, match="check how the sink logs in"):
            await sink.write([message("d")])
    assert len(login.asked) == 3


async def test_a_token_is_used_until_shortly_before_it_ends() -> None:
    login, now = Login(lifetime=100), [1000.0]
    async with serving(login) as target:
        config = HttpSettings(url=target.url, **login.settings(target, "oauth2"))
        tokens = Tokens(config, clock=lambda: now[0])
        async with new_session(1, 10) as session:
            assert await tokens.get(session) == "t1"
            now[0] += 89
            assert await tokens.get(session) == "t1"
            now[0] += 2
            assert await tokens.get(session) == "t2"


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (always(400, '{"error": "invalid_client"}'), TargetError, "check user, secret"),
        (always(401), TargetError, "check how the sink logs in"),
        (always(200, "<html>"), TargetError, "without an access_token"),
        (always(200, '["access_token"]'), TargetError, "without an access_token"),
        (always(503), TransientError, "503"),
    ],
)
async def test_a_token_that_cannot_be_had(answer: Json, error: type[Exception], text: str) -> None:
    async with serving(answer) as target, oauth(target, Login()) as sink:
        with pytest.raises(error, match=text):
            await sink.open()


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_what_is_taken_is_written(status: int) -> None:
    assert judged(Answer(status), "http://x", NOW) == "written"


@pytest.mark.parametrize("status", [402, 408, 425, 429, 500, 502, 503, 504, 599])
def test_what_will_pass_waits_for_as_long_as_the_target_asks(status: int) -> None:
    result = judged(Answer(status, retry_after="120"), "http://x", NOW)
    assert isinstance(result, TransientError)
    assert result.retry_after == 120


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 401, 403, 404, 405, 407, 410])
def test_what_the_operator_must_mend_stops_the_sink(status: int) -> None:
    with pytest.raises(TargetError, match=f"http://x answers {status} .*"):
        judged(Answer(status), "http://x", NOW)


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (400, "rejected_by_target"),
        (409, "conflict"),
        (413, "too_large"),
        (422, "rejected_by_target"),
        (499, "rejected_by_target"),
    ],
)
def test_what_will_never_pass_is_a_dead_letter_with_the_targets_words(
    status: int, cause: str
) -> None:
    result = judged(Answer(status, words=b"no \xff" + b"x" * 9000), "http://x", NOW)
    assert isinstance(result, Rejection)
    assert result.cause == cause
    assert result.explanation.startswith(f"the target answers {status}")
    assert result.target_error.startswith("no \ufffdxxx")
    assert len(result.target_error) == LONGEST_WORDS


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 0), ("0", 0), ("30", 30), ("Sun, 22 Nov 2026 10:01:00 GMT", 60), ("soon", 0), ("-5", 0),
     ("Sun, 22 Nov 2026 09:00:00 GMT", 0), ("99999999", LONGEST_RETRY_AFTER), ("²", 0)],
)  # fmt: skip
def test_how_long_a_target_asks_to_wait(text: str, seconds: float) -> None:
    assert seconds_of(text, NOW) == seconds


@given(
    keys=st.lists(st.sampled_from("abcde"), max_size=40),
    turns=st.lists(st.integers(0, 12), min_size=40, max_size=40),
    concurrency=st.integers(1, 6),
)
@settings(max_examples=30, deadline=None)
async def test_each_case_comes_in_order_with_many_requests_in_flight(
    keys: Sequence[str], turns: Sequence[int], concurrency: int
) -> None:
    messages = [message(key, number) for number, key in enumerate(keys)]
    slowness = iter(turns)

    async def answer(received: Received) -> web.StreamResponse:
        await many_turns(next(slowness))
        return await ok(received)

    async with serving(answer) as target, sink_to(target, concurrency=concurrency) as sink:
        assert await sink.write(messages) == ["written"] * len(keys)
    assert by_case(target.taken) == by_case(f"{key}-{n}" for n, key in enumerate(keys))
    assert target.busiest <= concurrency


def by_case(events: Json) -> dict[str, list[str]]:
    cases = defaultdict(list)
    for event in events:
        cases[event.partition("-")[0]].append(event)
    return cases


async def test_requests_of_different_cases_are_in_flight_at_once() -> None:
    together = asyncio.Barrier(4)

    async def answer(received: Received) -> web.StreamResponse:
        await together.wait()
        return await ok(received)

    async with serving(answer) as target, sink_to(target, concurrency=4) as sink:
        with anyio.fail_after(30):
            assert await sink.write([message(key) for key in "abcdefgh"]) == ["written"] * 8


async def test_a_bad_message_is_a_dead_letter_and_the_others_are_taken() -> None:
    async def answer(received: Received) -> web.StreamResponse:
        return await (always(422, "age: no number") if "b-" in received.event else ok)(received)

    async with serving(answer) as target, sink_to(target) as sink:
        results = await sink.write([message(key, n) for n, key in enumerate("abc")])
    assert results[0] == results[2] == "written"
    assert isinstance(results[1], Rejection)
    assert results[1].target_error == "age: no number"


class Waits:
    """Waits no time, but does something at each."""

    def __init__(self, *then: Json) -> None:
        self.seconds: list[float] = []
        self.then = list(then)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if self.then:
            await self.then.pop(0)()


async def test_nothing_that_was_taken_is_sent_again_when_a_target_is_busy() -> None:
    """With events, of which a case has many: what is behind a refused one waits for it."""
    left = iter([200] * 5 + [429] + [200, 503, 200, 200, 402])

    async def answer(received: Received) -> web.StreamResponse:
        return web.Response(status=next(left, 200), headers={"Retry-After": "7"})

    keys = "abcab" * 5
    records = [
        Made(
            state(key, n + 1).to_json(),
            f"demo/{key}".encode(),
            [("ce_id", f"{key}-{n}".encode())],
            "casewire.cases",
            offset=n,
        )
        for n, key in enumerate(keys)
    ]
    waits = Waits()
    async with serving(answer) as target, sink_to(target, concurrency=2) as sink:
        delivered = await Delivery("x", sink, sleep=waits).deliver(records)
    assert delivered.ends == ["written"] * len(keys)
    assert by_case(target.taken) == by_case(f"{key}-{n}" for n, key in enumerate(keys))
    assert waits.seconds
    assert set(waits.seconds) == {7}


async def test_a_target_that_is_killed_in_mid_batch_gets_the_rest_when_it_is_back() -> None:
    async def answer(received: Received) -> web.StreamResponse:
        if len(target.received) == 13:
            deaths.append(asyncio.ensure_future(target.kill()))
            await asyncio.Event().wait()
        return await ok(received)

    async def back() -> None:
        await deaths[0]
        await target.start()

    deaths: list[asyncio.Future[None]] = []
    records = [Made(state(f"c{n}", 1).to_json(), f"demo/c{n}".encode(),
                    [("ce_id", f"c{n}".encode()), ("casewire-version", b"1")], offset=n)
               for n in range(30)]  # fmt: skip
    async with serving(answer) as target, sink_to(target, concurrency=3) as sink:
        with anyio.fail_after(30):
            delivered = await Delivery("x", sink, sleep=Waits(back)).deliver(records)
    assert delivered.ends == ["written"] * 30
    assert set(target.taken) == {f"c{n}" for n in range(30)}
    again = len(target.received) - len({received.event for received in target.received})
    assert 1 <= again <= 3, "only what was in flight, and has had no answer, is sent again"


async def test_what_a_stop_leaves_unfinished_is_sent_again_under_the_same_key() -> None:
    reached = asyncio.Event()

    async def answer(received: Received) -> web.StreamResponse:
        if len(target.received) > 5:
            reached.set()
            await asyncio.Event().wait()
        return await ok(received)

    batch: Sequence[Message] = [message(f"c{n}") for n in range(10)]
    async with serving(answer) as target:
        async with sink_to(target, concurrency=2) as sink:
            write = asyncio.ensure_future(sink.write(batch))
            await reached.wait()
            write.cancel()
            await sink.close()
            with pytest.raises(asyncio.CancelledError):
                await write
        before = {received.event for received in target.received}
        target.answer = ok
        async with sink_to(target) as sink:
            assert await sink.write(batch) == ["written"] * 10
    assert before < set(target.taken) == {f"c{n}-0" for n in range(10)}


async def test_a_target_that_does_not_answer_is_left_after_a_while() -> None:
    async def answer(received: Received) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(answer) as target, sink_to(target, timeout_seconds=1) as sink:
        (result,) = await sink.write([message("a")])
    assert isinstance(result, TransientError)
    assert "does not answer in time" in str(result)


async def test_an_answer_counts_by_its_status_though_its_body_never_ends() -> None:
    async def answer(received: Received) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(received.request)
        while True:
            await response.write(b"x" * 100_000)

    async with serving(answer) as target, sink_to(target) as sink:
        with anyio.fail_after(30):
            assert await sink.write([message("a")]) == ["written"]


async def test_a_redirect_is_not_followed_and_takes_no_credentials_along() -> None:
    async with (
        serving() as elsewhere,
        serving(always(307, Location=elsewhere.url)) as target,
        sink_to(target, auth="header", secret="k") as sink,
    ):
        with pytest.raises(TargetError, match="a redirect: write where it leads as url"):
            await sink.write([message("a")])
    assert elsewhere.received == []


async def test_no_more_are_sent_when_the_operator_must_act() -> None:
    async with serving(always(403)) as target, sink_to(target, concurrency=2) as sink:
        with pytest.raises(TargetError, match="check what the sink's credentials may do"):
            await sink.write([message(f"c{n}") for n in range(50)])
    assert len(target.received) <= 2


async def test_an_address_is_tried_when_it_is_opened(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate.certificate, certificate.key)
    async with serving() as target, sink_to(target) as sink:
        await sink.open()
        await target.kill()
        with pytest.raises(TransientError, match="cannot be reached"):
            await sink.open()
    async with serving(tls=tls) as target, sink_to(target) as sink:
        with pytest.raises(TargetError, match="the certificate of"):
            await sink.open()
        with pytest.raises(TargetError, match="the certificate of"):
            await sink.write([message("a")])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "url: missing"),
        ({"url": "ftp://x/"}, "url: is no address"),
        ({"url": "https:///x"}, "url: is no address"),
        ({"url": "https://x:99999/"}, "url: is no address"),
        ({"url": "https://u:hidden@x/"}, "url: holds credentials"),
        ({"url": "https://x/", "secret": "hidden"}, "auth: there are credentials"),
        ({"url": "https://x/", "auth": "basic", "user": "u"}, "secret: missing"),
        ({"url": "https://x/", "auth": "header", "secret": "hid\nden"}, "secret: holds characters"),
        ({"url": "https://x/", "auth": "header", "secret": "hidden", "auth_header": "a b"},
         "auth_header: is no name"),
        ({"url": "https://x/", "auth": "oauth2", "user": "u", "secret": "hidden"},
         "token_url: missing"),
        ({"url": "https://x/", "auth": "oauth2", "user": "u", "secret": "hidden",
          "token_url": "x"}, "token_url: is no address"),
        ({"url": "https://x/", "headers": {"Authorization": "hidden"}},
         "headers.Authorization: is a credential"),
        ({"url": "https://x/", "headers": {"Host": "x"}}, "headers.Host: is the connection's own"),
        ({"url": "https://x/", "headers": {"a b": "x"}}, "headers.a b: is no name"),
        ({"url": "https://x/", "headers": {"a": "x\r\ny: z"}}, "headers.a: holds characters"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_before_anything_starts(
    given: dict[str, Json], problem: str
) -> None:
    found = list(HttpSettings(**given).problems())
    assert [text[: len(problem)] for text in found] == [problem]
    assert "hidden" not in found[0]


def test_people_see_who_is_asked_but_not_the_inbox(tmp_path: Path) -> None:
    settings = HttpSettings(url="https://app.openfn.org/i/1a2b3c?key=secret")
    assert not list(settings.problems())
    assert settings.place(tmp_path) == "https://app.openfn.org"
    assert isinstance(make_sink("openfn", settings, tmp_path), HttpSink)
