"""Processes come and go on one port, and no client notices."""

import asyncio
import contextlib
import re
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson
import pytest
from starlette.responses import PlainTextResponse

from ingress.connection import Traffic
from ingress.proxies import Proxies
from ingress.server import Certificate, bounds, drop_new, take_begun
from ingress.settings import IngressSettings
from tests.ingress.conftest import StartRig
from tests.ingress.rig import WAIT_SECONDS, Rig, until
from tests.ingress.test_faults import PROGRAM
from tests.ingress.test_tls import tls_settings, trusting_anyone, write_certificate
from tests.kafka_tools import create_topics, read_all
from tests.servers import KafkaServer, free_port

pytestmark = pytest.mark.anyio


class Process:
    """An ingress as a process of its own."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert await asyncio.wait_for(self._process.stdout.readline(), WAIT_SECONDS) == b"ready\n"

    async def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self._process.wait(), WAIT_SECONDS)

    async def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


@pytest.fixture
async def pair(kafka: KafkaServer, prefix: str) -> AsyncIterator[tuple[int, list[Process]]]:
    """Two processes on one port."""
    await create_topics(kafka.bootstrap_servers, prefix, ["captured", "bodies"])
    port = free_port()
    bind = f"127.0.0.1:{port}"
    command = (sys.executable, "-c", PROGRAM, kafka.bootstrap_servers, prefix, bind)
    processes = [Process(command), Process(command)]
    try:
        await asyncio.gather(*(process.start() for process in processes))
        yield port, processes
    finally:
        await asyncio.gather(*(process.kill() for process in processes))


async def send(port: int, body: bytes) -> str:
    """Post over a new connection, as HQ does; return the event's id."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /api/v1/in/demo HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    receipt: dict[str, str] = orjson.loads(await reader.readexactly(65))
    writer.close()
    return receipt["id"]


async def test_a_rolling_restart_loses_and_refuses_nothing(
    pair: tuple[int, list[Process]], kafka: KafkaServer, prefix: str
) -> None:
    port, processes = pair
    stored: dict[str, bytes] = {}
    stop = asyncio.Event()

    async def sender(name: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            body = b"%d/%d" % (name, number)
            stored[await send(port, body)] = body

    async with asyncio.TaskGroup() as group:
        for name in range(32):
            group.create_task(sender(name))
        for process in processes:
            before = len(stored)
            assert await process.stop() == 0
            await process.start()
            await until(lambda before=before: len(stored) > before + 100)  # type: ignore[misc]
        stop.set()
    records = await read_all(kafka.bootstrap_servers, f"{prefix}captured")
    captured = {(record.key or b"").decode(): record.value for record in records}
    assert captured == stored


def shared_listener(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(100)
    listener.setblocking(False)
    return listener


async def test_a_process_that_stops_gets_no_new_connection_and_keeps_those_it_has() -> None:
    port = free_port()
    with shared_listener(port) as leaving, contextlib.ExitStack() as stack:
        before = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        drop_new(leaving)
        staying = stack.enter_context(shared_listener(port))
        opening = [
            asyncio.create_task(asyncio.open_connection("127.0.0.1", port)) for _ in range(20)
        ]
        await asyncio.wait(opening, return_when=asyncio.FIRST_COMPLETED)
        accepted, _ = leaving.accept()
        accepted.close()
        before.close()
        with pytest.raises(BlockingIOError):
            leaving.accept()
        leaving.close()
        for _, writer in await asyncio.wait_for(asyncio.gather(*opening), WAIT_SECONDS):
            writer.close()
        for _ in range(20):
            staying.accept()[0].close()


@pytest.mark.parametrize("secure", [False, True])
async def test_a_connection_that_was_half_open_at_the_stop_goes_on(
    tmp_path: Path, *, secure: bool
) -> None:
    """TCP_DEFER_ACCEPT has it half open until the client sends something."""
    write_certificate(tmp_path, "ingress")
    tls = Certificate.of(tls_settings(tmp_path)) if secure else None
    traffic = Traffic(
        app=PlainTextResponse("taken"),
        bounds=bounds(IngressSettings()),
        proxies=Proxies(()),
        refused=lambda _: None,
    )
    port = free_port()
    listener = shared_listener(port)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    client = socket.create_connection(("127.0.0.1", port))
    with pytest.raises(BlockingIOError):
        listener.accept()
    drop_new(listener)
    request = [b"GET / HTTP/1.1\r\n", b"Connection: close\r\n\r\n"]
    if not secure:
        client.sendall(request.pop(0))
    context = trusting_anyone() if secure else None
    name = "ingress" if secure else None
    opening = asyncio.open_connection(sock=client, ssl=context, server_hostname=name)
    opened = asyncio.create_task(opening)
    await until(lambda: bool(select.select([listener], [], [], 0)[0]))
    await asyncio.wait_for(take_begun(traffic, listener, tls), WAIT_SECONDS)
    assert len(traffic.connections) == 1
    reader, writer = await opened
    writer.writelines(request)
    answer = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
    writer.close()
    assert answer.endswith(b"taken")


async def test_a_client_that_has_connected_is_answered_after_the_stop(start: StartRig) -> None:
    rig = await start()
    connections = "casewire_ingress_connections"
    await until(lambda: rig.registry.get_sample_value(connections) == 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    await until(lambda: rig.registry.get_sample_value(connections) == 1)
    rig.stop.set()
    writer.write(b"POST /api/v1/in/demo HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
    answer = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


async def test_the_stop_waits_for_no_client_that_says_nothing(start: StartRig) -> None:
    rig = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(b"POST /api/v1/in/demo HTTP/1.1\r\nContent-Length: 20\r\n\r\nhi")
    await writer.drain()
    in_flight = "casewire_ingress_in_flight_bytes"
    await until(lambda: rig.registry.get_sample_value(in_flight) == 2)
    rig.stop.set()
    answer = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"shutting down" in answer
    writer.close()


async def test_requests_in_one_piece_are_answered_in_their_order(rig: Rig) -> None:
    one = b"POST /api/v1/in/demo HTTP/1.1\r\nContent-Length: 1\r\n\r\n%d"
    last = b"GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n"
    answer = await rig.raw(one % 1 + one % 2 + one % 3 + last)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"200", b"200", b"404"]
    assert sorted(record.value or b"" for record in (await rig.captured()).values()) == [
        b"1", b"2", b"3",
    ]  # fmt: skip


async def test_garbage_behind_a_request_does_not_spoil_its_answer(rig: Rig) -> None:
    answer = await rig.raw(
        b"POST /api/v1/in/demo HTTP/1.1\r\nContent-Length: 1\r\n\r\n1\x00\x01 garbage\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b" 400 " not in answer
    assert len(await rig.captured()) == 1


async def test_a_client_that_closes_its_half_hears_its_answer(rig: Rig) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(b"POST /api/v1/in/demo HTTP/1.1\r\nContent-Length: 1\r\n\r\n1")
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_body_for_an_upgrade_is_stored_all_the_same(rig: Rig) -> None:
    answer = await rig.raw(
        b"POST /api/v1/in/demo HTTP/1.1\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AA\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [record.value for record in (await rig.captured()).values()] == [b"body"]


async def test_a_gzip_body_is_stored_as_it_came(rig: Rig) -> None:
    body = bytes.fromhex("1f8b08000000000002ff4bcc4b01004b2b8f0303000000")
    reply = await rig.request("POST", "/api/v1/in/demo", body, {"Content-Encoding": "gzip"})
    record = (await rig.captured())[reply.event_id]
    assert record.value == body
    assert ("content-encoding", b"gzip") in record.headers


async def test_a_trace_is_taken_if_it_is_right_and_begun_if_not(rig: Rig) -> None:
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent: list[Sequence[tuple[str, str]]] = [
        [("traceparent", good)],
        [("traceparent", good[:-1])],
        [("traceparent", good.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32))],
        [("traceparent", good), ("traceparent", good)],
        [],
    ]
    path = "/api/v1/in/demo"
    replies = [await rig.request("POST", path, b"x", headers) for headers in sent]
    captured = await rig.captured()
    traces = [
        [value for name, value in captured[reply.event_id].headers if name == "traceparent"]
        for reply in replies
    ]
    assert traces[0] == [good.encode()]
    for trace in traces[1:]:
        assert len(trace) == 1
        assert trace[0] != good.encode()
        assert len(trace[0]) == 55
        assert trace[0].endswith(b"-00")
