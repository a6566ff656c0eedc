"""What goes in by HTTP is in Kafka as it was sent, and every request has its right answer."""

import asyncio
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings, strategies as st

from ingress.app import badly_framed
from ingress.auth import Credential
from ingress.request import Head, HeaderNames, parse_path, read_head, stored_query
from ingress.settings import IngressSettings
from schemas.envelope import Captured
from tests.ingress.conftest import StartRig
from tests.ingress.rig import Rig, until

pytestmark = pytest.mark.anyio

BODIES = (b"", b"\x00\xff\r\n\r\n\x00", b"<a>\xc3\xa9</a>", b"{" * 70_000, bytes(range(256)) * 4096)


async def test_bodies_are_stored_byte_for_byte_and_the_receipt_names_the_event(rig: Rig) -> None:
    replies = [await rig.post(body) for body in BODIES]
    captured = await rig.captured()
    assert [reply.status for reply in replies] == [200] * len(BODIES)
    assert [captured[reply.event_id].value for reply in replies] == list(BODIES)
    assert len(captured) == len(BODIES)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_method_label_path_and_query_are_stored(rig: Rig, method: str) -> None:
    path = "/api/v1/in/demo/my%20label/?app_id=a%20b&password=x&app_id=&other=1"
    reply = await rig.request(method, path, b"body")
    record = (await rig.captured())[reply.event_id]
    event = Captured.from_record(record.value, record.headers)
    assert (event.domain, event.label, event.method) == ("demo", "my label", method)
    assert event.query == "app_id=a+b&app_id="
    assert event.header("casewire-path") == "/api/v1/in/demo/my%20label/"
    assert event.header("ce_source") == "/commcare/demo"
    assert event.header("ce_type") == "org.commcare.forwarded"


async def test_headers_keep_bytes_repeats_and_order_but_no_secrets(start: StartRig) -> None:
    key = Credential(
        name="k", domains=("demo",), kind="api-key", secret="open sesame", header="X-Pass"
    )
    rig = await start(credentials=[key])
    await rig.raw(
        b"POST /api/v1/in/demo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
        b"Received-On: 2015-04-17T20:14:34.046462Z\r\nX-Repeat: one\r\nx-other: \xe9\xff\r\n"
        b"X-REPEAT: two\r\nX-Pass: open sesame\r\nAuthorization: Basic eDp5\r\nCookie: c\r\n"
        b"My-Token: t\r\nce_id: forged\r\ncasewire-domain: forged\r\nX-Empty:\r\n"
        b"Content-Length: 2\r\n\r\nhi"
    )
    (record,) = (await rig.captured()).values()
    names = [name for name, _ in record.headers]
    kept = [header for header in record.headers if not header[0].startswith(("ce_", "casewire-"))]
    assert kept == [
        ("host", b"h"),
        ("connection", b"close"),
        ("received-on", b"2015-04-17T20:14:34.046462Z"),
        ("x-repeat", b"one"),
        ("x-other", b"\xe9\xff"),
        ("x-repeat", b"two"),
        ("x-empty", b""),
        ("content-length", b"2"),
        ("traceparent", kept[-1][1]),
    ]
    assert names.count("ce_id") == names.count("casewire-domain") == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/v1/in/demo", 200),
        ("POST", "/api/v1/in/demo/", 200),
        ("PUT", "/api/v1/in/demo/label", 200),
        ("DELETE", "/api/v1/in/demo/label/", 200),
        ("GET", "/api/v1/in/demo", 200),
        ("HEAD", "/api/v1/in/demo/label/", 200),
        ("GET", "/api/v1/in/unknown", 503),
        ("POST", "/api/v1/in/unknown", 503),
        ("POST", "/api/v1/in/Demo", 503),
        ("POST", "/api/v1/in/de%20mo", 503),
        ("POST", "/api/v1/in/demo/label/more", 503),
        ("POST", "/api/v1/in/demo//", 503),
        ("POST", "/api/v1/in/", 503),
        ("POST", "/api/v1/in", 503),
        ("PATCH", "/api/v1/in/demo", 405),
        ("OPTIONS", "/api/v1/in/demo", 405),
        ("POST", "/", 404),
        ("POST", "/api/v1/other", 404),
        ("GET", "/api/v1/inside", 404),
    ],
)
async def test_every_request_has_its_answer(rig: Rig, method: str, path: str, status: int) -> None:
    reply = await rig.request(method, path, b"" if method in ("GET", "HEAD") else b"{}")
    assert reply.status == status
    assert reply.text or method == "HEAD"
    assert ("Allow" in reply.headers) == (status == 405)
    stored = method in ("POST", "PUT", "DELETE") and status == 200
    assert len(await rig.captured()) == stored


@pytest.mark.parametrize(
    ("domains", "unknown", "status"),
    [((), None, 200), ((), "accept", 200), ((), "refuse", 503), (("demo",), None, 503)],
)
async def test_any_domain_is_taken_only_while_none_is_configured(
    start: StartRig, domains: tuple[str, ...], unknown: str | None, status: int
) -> None:
    rig = await start(IngressSettings(unknown_domains=unknown), domains=domains)  # type: ignore[arg-type]
    assert (await rig.post(b"x", "/api/v1/in/other")).status == status


async def test_a_body_above_the_limit_is_413_announced_or_not(start: StartRig) -> None:
    rig = await start(IngressSettings(max_body_bytes=100_000))
    head = b"POST /api/v1/in/demo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
    chunk = b"%x\r\n%s\r\n" % (60_000, bytes(60_000))
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk
    assert (await rig.post(bytes(100_001))).status == 413
    assert b" 413 " in (await rig.raw(chunked + chunk + b"0\r\n\r\n")).splitlines()[0]
    assert b" 200 " in (await rig.raw(chunked + b"0\r\n\r\n")).splitlines()[0]
    assert (await rig.post(bytes(100_000))).status == 200
    assert len(await rig.captured()) == 2


async def test_a_client_that_waits_for_100_continue_hears_413_at_once(start: StartRig) -> None:
    rig = await start(IngressSettings(max_body_bytes=10))
    head = (
        b"POST /api/v1/in/demo HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\n"
    )
    answer = await rig.raw(head + b"Content-Length: 11\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"POST /api/v1/in/demo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 411),
        (b"DELETE /api/v1/in/demo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 200),
        (b"POST /api/v1/in/demo HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"no HTTP at all\r\n\r\n", 400),
        (
            b"POST /api/v1/in/demo HTTP/1.1\r\nConnection: close\r\nX: %s\r\n"
            b"Content-Length: 0\r\n\r\n" % (b"x" * 70_000),
            400,
        ),
    ],
)
async def test_broken_http_is_told(rig: Rig, request_head: bytes, status: int) -> None:
    answer = await rig.raw(request_head)
    assert int(answer.split(b" ", 2)[1]) == status
    assert len(await rig.captured()) == (status == 200)


async def test_a_body_that_breaks_off_is_not_stored(rig: Rig) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(b"POST /api/v1/in/demo HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nhalf")
    await writer.drain()
    in_flight = "casewire_ingress_in_flight_bytes"
    await until(lambda: rig.registry.get_sample_value(in_flight) == 4)
    writer.transport.abort()
    await until(lambda: rig.registry.get_sample_value(in_flight) == 0)
    assert (await rig.post(b"next")).status == 200
    assert [record.value for record in (await rig.captured()).values()] == [b"next"]


async def test_a_thousand_requests_at_once_are_stored_once_each(rig: Rig) -> None:
    bodies = [f"body {number}".encode() for number in range(1000)]
    replies = await asyncio.gather(*(rig.post(body) for body in bodies))
    captured = await rig.captured()
    assert {reply.status for reply in replies} == {200}
    assert [captured[reply.event_id].value for reply in replies] == bodies
    assert len(captured) == len(bodies)


async def test_more_in_flight_than_allowed_is_503_and_passes(start: StartRig) -> None:
    rig = await start(IngressSettings(max_in_flight_events=1))
    replies = await asyncio.gather(*(rig.post(b"x") for _ in range(50)))
    statuses = {reply.status for reply in replies}
    assert statuses == {200, 503}
    assert (await rig.post(b"x")).status == 200


async def test_metrics_count_events_answers_and_bytes_with_bounded_labels(start: StartRig) -> None:
    rig = await start(domains=())
    await rig.post(b"12345")
    await rig.post(b"123", "/api/v1/in/Bad")
    labels = {"domain": "other", "method": "POST"}
    value = rig.registry.get_sample_value
    assert value("casewire_ingress_events_total", labels) == 1
    assert value("casewire_ingress_body_bytes_total", {"domain": "other"}) == 5
    assert value("casewire_ingress_answers_total", {"status": "200"}) == 1
    assert value("casewire_ingress_answers_total", {"status": "503"}) == 1
    assert value("casewire_ingress_seconds_count", {"domain": "other"}) == 1
    assert value("casewire_ingress_in_flight_events") == 0


def test_paths_that_are_no_address_are_told_apart() -> None:
    assert parse_path("/api/v1/in/a.b-c/") == ("a.b-c", "")
    assert parse_path("/api/v1/in/a/b") == ("a", "b")
    assert parse_path("/api/v1/in/a\n") is None


@given(st.dictionaries(st.sampled_from(["app_id", "other"]), st.text(max_size=5), max_size=2))
@settings(max_examples=50)
def test_only_named_query_parameters_survive(sent: dict[str, str]) -> None:
    kept = urlencode({name: value for name, value in sent.items() if name == "app_id"})
    assert stored_query(urlencode(sent).encode(), ("app_id",)) == kept


def test_a_head_tells_how_the_body_is_framed() -> None:
    sent = [(b"content-length", b"7"), (b"expect", b"100-continue")]
    head = read_head(sent, HeaderNames(frozenset()))
    assert (head.length, head.framed, head.waits, head.traced) == (7, True, True, False)
    unframed = Head(stored=[], length=None, framed=False, waits=False, traced=False)
    refusal = badly_framed("PUT", unframed, 10)
    assert refusal is not None
    assert refusal.status == 411
