"""What a client may not do ends with an answer that tells it, and never with a stored event."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from ingress.proxies import Proxies
from ingress.rates import Rates
from ingress.settings import IngressSettings
from schemas.errors import ConfigError
from tests.ingress.conftest import StartRig
from tests.ingress.rig import WAIT_SECONDS, Rig

pytestmark = pytest.mark.anyio

HEAD = b"POST /api/v1/in/demo HTTP/1.1\r\nHost: h\r\n"
IMPATIENT = IngressSettings(head_seconds=1, body_seconds=2, silence_seconds=1, idle_seconds=1)


async def refused(rig: Rig, status: int, reason: str) -> None:
    """Fail unless one request was refused for that reason, and none stored."""
    labels = {"reason": reason}
    value = rig.registry.get_sample_value
    assert value("casewire_ingress_refusals_total", labels) == 1
    assert value("casewire_ingress_answers_total", {"status": str(status)}) == 1
    assert not await rig.captured()


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"X: " + b"x" * 70_000,  # no end in sight
        HEAD + b"X: %s\r\nContent-Length: 0\r\n\r\n" % (b"x" * 70_000),
        HEAD + b"X: x\r\n" * 300 + b"Content-Length: 0\r\n\r\n",
        b"POST /" + b"x" * 70_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 70_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 70_000,
    ],
    ids=["endless header", "large header", "many headers", "address", "trailer", "chunk extension"],
)
async def test_what_is_no_body_is_bounded_while_it_comes(rig: Rig, sent: bytes) -> None:
    answer = await rig.raw(sent)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"too many or too large.\n")
    await refused(rig, 400, "head_too_large")


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /api/v1",
        HEAD + b"Content-Length: 5\r\n\r\n",
        HEAD + b"Content-Length: 5\r\n\r\nabc",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
    ids=["head", "body", "rest of a body", "next chunk"],
)
async def test_what_does_not_come_in_time_is_503(start: StartRig, sent: bytes) -> None:
    rig = await start(IMPATIENT)
    answer = await rig.raw(sent)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b"the request took too long to come.\n")
    await refused(rig, 503, "too_slow")


async def test_a_body_that_trickles_is_bounded_as_a_whole(start: StartRig) -> None:
    rig = await start(IMPATIENT)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
    answer = asyncio.create_task(reader.read())
    while not answer.done():
        writer.write(b"x")
        await asyncio.wait([answer], timeout=0.2)
    writer.close()
    assert answer.result().startswith(b"HTTP/1.1 503 ")
    await refused(rig, 503, "too_slow")


async def test_a_connection_without_a_request_is_closed(start: StartRig) -> None:
    rig = await start(IMPATIENT)
    assert await rig.raw(b"") == b""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(HEAD + b"Content-Length: 1\r\n\r\n1")
    answer = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" not in answer


async def test_a_connection_too_many_is_503_and_passes(start: StartRig) -> None:
    rig = await start(IngressSettings(max_connections=2))
    held = [await asyncio.open_connection("127.0.0.1", rig.port) for _ in range(2)]
    answer = await rig.raw(HEAD + b"Content-Length: 1\r\n\r\n1")
    assert answer.startswith(b"HTTP/1.1 503 ")
    await refused(rig, 503, "connections_full")
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    closing = HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\n1"
    async with asyncio.timeout(WAIT_SECONDS):
        while not (await rig.raw(closing)).startswith(b"HTTP/1.1 200 "):
            pass


async def test_a_domain_that_is_too_quick_is_503_and_no_other(start: StartRig) -> None:
    rig = await start(IngressSettings(max_events_per_second=1), domains=("demo", "other"))
    replies = await asyncio.gather(*(rig.post(b"x") for _ in range(20)))
    assert {reply.status for reply in replies} == {200, 503}
    assert (await rig.post(b"x", "/api/v1/in/other")).status == 200
    slow = [reply.text for reply in replies if reply.status == 503]
    assert "max_events_per_second" in slow[0]


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 10))
def test_a_rate_holds_over_any_time(steps: list[float], per_second: int) -> None:
    now = 1000.0
    rates = Rates(per_second, lambda: now)
    passed = []
    for step in steps:
        now += step
        if rates.take("a"):
            passed.append(now)
    for index, first in enumerate(passed):
        for count, last in enumerate(passed[index:], start=1):
            assert count <= (last - first) * per_second + per_second + 1.001


def test_without_a_rate_everything_passes() -> None:
    assert all(Rates(0).take("a") for _ in range(1000))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.1.2.3", [b"203.0.113.7"], "203.0.113.7"),
        ("10.1.2.3", [b"6.6.6.6, 203.0.113.7"], "203.0.113.7"),  # what the client wrote itself
        ("10.1.2.3", [b"6.6.6.6", b"203.0.113.7, 10.9.9.9"], "203.0.113.7"),
        ("10.1.2.3", [b"203.0.113.7:1234"], "203.0.113.7"),
        ("10.1.2.3", [b"[2001:db8::1]:80"], "2001:db8::1"),
        ("10.1.2.3", [b"unknown"], "10.1.2.3"),
        ("10.1.2.3", [b"203.0.113.7, rubbish"], "10.1.2.3"),
        ("10.1.2.3", [], "10.1.2.3"),
        ("::ffff:10.1.2.3", [b"203.0.113.7"], "203.0.113.7"),
        ("198.51.100.1", [b"203.0.113.7"], "198.51.100.1"),  # not one of ours
    ],
)
def test_only_proxies_that_are_believed_name_the_client(
    peer: str, forwarded: Sequence[bytes], client: str
) -> None:
    proxies = Proxies(["127.0.0.1", "10.0.0.0/8"])
    headers = [(b"x-forwarded-for", value) for value in forwarded]
    found = proxies.client((peer, 1), headers)
    assert found is not None
    assert found[0] == client


def test_without_proxies_the_peer_is_the_client() -> None:
    headers = [(b"x-forwarded-for", b"203.0.113.7")]
    assert Proxies([]).client(("127.0.0.1", 1), headers) == ("127.0.0.1", 1)


def test_a_proxy_that_is_no_address_is_told() -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        Proxies(["proxy.example"])
