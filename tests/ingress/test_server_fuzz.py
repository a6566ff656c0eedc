"""Whatever bytes come: no 500, no traceback, the server lives, and every 200 is in Kafka."""

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Thread

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings, strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from ingress.settings import IngressSettings
from tests.ingress.rig import Rig, running
from tests.kafka_tools import create_topics
from tests.servers import KafkaServer

METHODS = [b"POST", b"PUT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"CONNECT", b"\x00"]
TARGETS = [
    b"/api/v1/in/demo", b"/api/v1/in/demo/%ff%00", b"/api/v1/in/demo?app_id=%zz&a", b"/api/v1/in",
    b"/api/v1/in/\xe9", b"http://h/api/v1/in/demo", b"*", b"//", b"h:1", b"/api/v1/token", b"?",
]  # fmt: skip
FIELDS = [
    b"Host: h", b"Content-Length: 4", b"Content-Length: -1", b"Content-Length: 9999999999999999999",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Expect: 100-continue",
    b"Connection: close", b"Connection: Upgrade", b"Upgrade: h2c", b"Upgrade: websocket",
    b"Content-Encoding: gzip", b"traceparent: 00-x", b"X-Forwarded-For: a", b"Content-Type: \xff",
    b"Authorization: Digest", b"A\x00: b", b": ", b" folded",
]  # fmt: skip
BODIES = [
    b"",
    b"body",
    b"4\r\nbody\r\n0\r\n\r\n",
    b"4;x=y\r\nbody\r\n0\r\nT: t\r\n\r\n",
    b"zz\r\n",
    b"\xff" * 9,
]

REQUESTS = st.builds(
    lambda method, target, version, fields, body: (
        b"%b %b HTTP/%b\r\n" % (method, target, version)
        + b"".join(item + b"\r\n" for item in fields)
        + b"\r\n"
        + body
    ),
    st.sampled_from(METHODS),
    st.sampled_from(TARGETS) | st.binary(max_size=20).map(lambda tail: b"/api/v1/in/demo/" + tail),
    st.sampled_from([b"1.1", b"1.0", b"2.0", b"9"]),
    st.lists(st.sampled_from(FIELDS) | st.binary(max_size=30), max_size=6),
    st.sampled_from(BODIES) | st.binary(max_size=50),
)
SENT = st.lists(REQUESTS, min_size=1, max_size=3).map(b"".join) | st.binary(max_size=200)


@dataclass(slots=True)
class Target:
    """A running ingress, how often it was tried, and the ids of all events that it has stored."""

    port: int
    captured: Callable[[], set[str]]
    tried: int = 0
    stored: set[str] = field(default_factory=set)


@contextmanager
def target(kafka: KafkaServer, prefix: str) -> Iterator[Target]:
    """Serve in a thread of its own: Hypothesis runs synchronous tests."""
    rig = Rig(kafka.bootstrap_servers, prefix, IngressSettings(), CollectorRegistry())
    ready, done = Event(), asyncio.Event()

    async def serving() -> None:
        await create_topics(kafka.bootstrap_servers, prefix, ["captured", "bodies"])
        async with running(rig, ("demo",), ()):
            ready.set()
            await done.wait()

    async def captured() -> set[str]:
        return set(await rig.captured())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        thread = Thread(target=runner.run, args=(serving(),))
        thread.start()
        try:
            assert ready.wait(60)
            yield Target(rig.port, lambda: asyncio.run(captured()))
        finally:
            runner.get_loop().call_soon_threadsafe(done.set)
            thread.join(30)


def exchange(port: int, sent: bytes, cut: int) -> bytes:
    """Send in two pieces, close our half, return the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        received = []
        with suppress(OSError):
            client.sendall(sent[:cut])
            client.sendall(sent[cut:])
            client.shutdown(socket.SHUT_WR)
            while data := client.recv(65536):
                received.append(data)
        return b"".join(received)


def fuzz(target: Target, cases: int) -> None:
    @settings(
        max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(SENT, st.integers(0, 200))
    def run(sent: bytes, cut: int) -> None:
        target.tried += 1
        answer = exchange(target.port, sent, cut)
        statuses = {int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)}
        assert statuses <= {100, 200, 400, 401, 404, 405, 411, 413, 503}
        target.stored |= {found.decode() for found in re.findall(rb'"id": "([0-9a-f-]+)"', answer)}

    with capture_logs() as logs:
        run()
    assert [log for log in logs if log["log_level"] in ("error", "critical")] == []
    assert b" 200 " in exchange(target.port, b"GET /api/v1/in/demo HTTP/1.1\r\n\r\n", 9)
    assert target.tried >= cases
    assert target.stored
    assert target.stored <= target.captured()


@pytest.mark.parametrize("cases", [300, pytest.param(100_000, marks=pytest.mark.nightly)])
def test_no_bytes_harm_the_server(kafka: KafkaServer, prefix: str, cases: int) -> None:
    with target(kafka, prefix) as one:
        fuzz(one, cases)
