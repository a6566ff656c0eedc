"""What was answered 200 is in Kafka, whatever happens to the broker, the producer or ourselves."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from prometheus_client import CollectorRegistry

from ingress.settings import IngressSettings
from tests.ingress.conftest import StartRig
from tests.ingress.rig import WAIT_SECONDS, Rig, running, until
from tests.kafka_tools import create_topics, read_all
from tests.servers import KafkaServer, LocalKafka, free_port, running_kafka

pytestmark = pytest.mark.anyio

IMPATIENT = IngressSettings(kafka_timeout_seconds=1)


@pytest.fixture
async def lonely(tmp_path: Path) -> AsyncIterator[tuple[Rig, LocalKafka]]:
    """An ingress on a broker of its own, which the test may kill."""
    with running_kafka(tmp_path / "kafka") as server:
        await create_topics(server.bootstrap_servers, "t.", ["captured", "bodies"])
        rig = Rig(server.bootstrap_servers, "t.", IMPATIENT, CollectorRegistry())
        async with running(rig, ("demo",), ()):
            yield rig, server


async def test_every_200_outlives_a_broker_that_is_killed_under_load(
    lonely: tuple[Rig, LocalKafka],
) -> None:
    rig, server = lonely
    stored: dict[str, bytes] = {}
    refused = asyncio.Event()
    stop = asyncio.Event()

    async def send(sender: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            body = f"{sender}/{number}".encode() * 50
            reply = await rig.post(body)
            assert reply.status in (200, 503), reply
            if reply.status == 200:
                stored[reply.event_id] = body
            else:
                refused.set()
                assert reply.text.startswith("Not stored, send it again later: ")

    async with asyncio.TaskGroup() as group:
        for sender in range(16):
            group.create_task(send(sender))
        await until(lambda: len(stored) > 200)
        server.kill()
        await refused.wait()
        before = len(stored)
        await asyncio.to_thread(server.start)
        await until(lambda: len(stored) > before + 200)
        stop.set()
    assert rig.publisher.ready() is None
    captured = await rig.captured()
    assert {event_id: captured[event_id].value for event_id in stored} == stored


async def test_an_ingress_that_starts_before_its_broker_and_topics_says_why_and_waits(
    kafka: KafkaServer, prefix: str
) -> None:
    rig = Rig(kafka.bootstrap_servers, prefix, IMPATIENT, CollectorRegistry())
    async with running(rig, ("demo",), (), connected=False):
        await until(lambda: "topics create" in str(rig.publisher.ready()))
        reply = await rig.post(b"x")
        assert reply.status == 503
        assert "casewire topics create" in reply.text
        assert (await rig.request("GET", "/api/v1/in/demo")).status == 200
        await create_topics(kafka.bootstrap_servers, prefix, ["captured", "bodies"])
        await until(lambda: rig.publisher.ready() is None)
        assert (await rig.post(b"x")).status == 200


async def test_a_record_that_the_broker_refuses_goes_in_pieces_and_its_producer_is_replaced(
    start: StartRig, kafka: KafkaServer, prefix: str
) -> None:
    small = NewTopic(f"{prefix}captured", 8, 1, topic_configs={"max.message.bytes": "20000"})
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.create_topics([small])
    await admin.close()
    rig = await start()
    # Only a partition that has seen the producer before minds a hole in its sequence.
    await asyncio.gather(*(rig.post(b"first") for _ in range(100)))
    refused = await rig.post(bytes(30_000))
    assert refused.status == 200
    replies = await asyncio.gather(*(rig.post(b"%d" % number) for number in range(40)))
    assert {reply.status for reply in replies} == {200}
    captured = await rig.captured()
    stored = [captured[reply.event_id].value for reply in replies]
    assert stored == [b"%d" % number for number in range(40)]
    claim = dict(captured[refused.event_id].headers)["casewire-claim"]
    assert claim.startswith(b"1;30000;")
    pieces = await read_all(rig.bootstrap, f"{prefix}bodies")
    # Twice if its producer was replaced before the answer came.
    assert {piece.value for piece in pieces} == {bytes(30_000)}


async def test_a_stop_finishes_what_is_in_flight_and_takes_no_more(start: StartRig) -> None:
    rig = await start()
    sent = [asyncio.create_task(rig.post(b"%d" % number)) for number in range(200)]
    in_flight = "casewire_ingress_in_flight_events"
    await until(lambda: (rig.registry.get_sample_value(in_flight) or 0) > 0)
    rig.stop.set()
    replies = []
    for task in sent:
        with contextlib.suppress(aiohttp.ClientError):
            replies.append(await task)
    assert replies
    assert {reply.status for reply in replies} <= {200, 503}
    captured = await rig.captured()
    assert {reply.event_id for reply in replies if reply.status == 200} <= captured.keys()
    await asyncio.wait_for(rig.stopped.wait(), WAIT_SECONDS)
    with pytest.raises(aiohttp.ClientError):
        await rig.post(b"late")


PROGRAM = """
import asyncio, sys, uvloop
from ingress.access import Access
from ingress.app import create_app
from ingress.auth import policy
from ingress.publisher import KafkaPublisher
from ingress.server import serve
from ingress.settings import IngressSettings
from schemas.settings import KafkaSettings

async def main():
    settings = IngressSettings()
    kafka = KafkaSettings(bootstrap_servers=sys.argv[1], topic_prefix=sys.argv[2])
    publisher = KafkaPublisher(kafka, settings)
    app = create_app(settings, Access(policy([], [])), publisher)
    serving = asyncio.create_task(serve(app, sys.argv[3], settings))
    while publisher.ready():
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await serving

uvloop.run(main())
"""


async def test_processes_share_a_port_and_end_by_signal_with_code_0(
    kafka: KafkaServer, prefix: str
) -> None:
    await create_topics(kafka.bootstrap_servers, prefix, ["captured", "bodies"])
    bind = f"127.0.0.1:{free_port()}"
    command = (sys.executable, "-c", PROGRAM, kafka.bootstrap_servers, prefix, bind)
    processes = [
        await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readline(), WAIT_SECONDS) == b"ready\n"
        async with aiohttp.ClientSession() as client:
            for process, number in zip(processes, (signal.SIGTERM, signal.SIGINT), strict=True):
                async with client.post(f"http://{bind}/api/v1/in/demo", data=b"x") as reply:
                    assert reply.status == 200
                process.send_signal(number)
                assert await asyncio.wait_for(process.wait(), WAIT_SECONDS) == 0
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
