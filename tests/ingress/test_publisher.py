"""Where an event ends up: in Kafka, in the spool and then in Kafka, or with 503."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from prometheus_client import CollectorRegistry

from ingress.lanes import RefusedError
from ingress.publisher import KafkaPublisher, Publisher, ended
from ingress.records import Event
from ingress.settings import IngressSettings
from ingress.spool_publisher import create_publisher
from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import LARGE_RECORD
from tests.ingress.rig import until
from tests.kafka_tools import create_topics, read_all
from tests.servers import KafkaServer, free_port

pytestmark = pytest.mark.anyio


def event(number: int, body: bytes = b"<form/>") -> Event:
    return Event(f"id-{number}", [("ce_id", b"id-%d" % number)], body)


@contextlib.asynccontextmanager
async def running(publisher: Publisher) -> AsyncIterator[None]:
    await publisher.start()
    try:
        yield
    finally:
        await publisher.stop()


def segments(directory: Path) -> list[Path]:
    return list(directory.glob("*/*.segment"))


def draining(directory: Path) -> bool:
    return any(directory.glob("*/progress"))


def any_file(directory: Path) -> bool:
    return any(directory.iterdir())


def spooling(bootstrap: str, prefix: str, directory: Path, **settings: object) -> Publisher:
    kafka = KafkaSettings(bootstrap_servers=bootstrap, topic_prefix=prefix)
    values = {"kafka_timeout_seconds": 1, **settings}
    return create_publisher(
        kafka,
        IngressSettings(**values),  # type: ignore[arg-type]
        directory,
        CollectorRegistry(),
    )


async def test_what_was_spooled_reaches_kafka_as_it_would_have_at_once(
    kafka: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    """Of any size: a body too large for a record is cut in pieces when it leaves the spool."""
    nowhere = f"127.0.0.1:{free_port()}"
    large = bytes(range(256)) * (LARGE_RECORD // 256) + b"more"
    publisher = spooling(nowhere, prefix, tmp_path)
    async with running(publisher):
        assert await publisher.publish(event(1)) == "spool"
        assert await publisher.publish(event(2, large)) == "spool"
        assert await publisher.publish(event(3, b"")) == "spool"
        assert publisher.ready() is None
    await create_topics(kafka.bootstrap_servers, prefix, ["captured", "bodies"])
    publisher = spooling(kafka.bootstrap_servers, prefix, tmp_path)
    async with running(publisher):
        await until(lambda: not segments(tmp_path))
    captured = {
        record.key: (record.value, list(record.headers))
        for record in await read_all(kafka.bootstrap_servers, f"{prefix}captured")
    }
    claim = f"9;{len(large)};{hashlib.sha256(large).hexdigest()}".encode()
    assert captured == {
        b"id-1": (b"<form/>", [("ce_id", b"id-1")]),
        b"id-2": (None, [("ce_id", b"id-2"), ("casewire-claim", claim)]),
        b"id-3": (b"", [("ce_id", b"id-3")]),
    }
    pieces = await read_all(kafka.bootstrap_servers, f"{prefix}bodies")
    assert b"".join(piece.value or b"" for piece in pieces) == large


async def test_without_a_spool_what_kafka_does_not_take_is_refused(
    prefix: str, tmp_path: Path
) -> None:
    publisher = spooling(f"127.0.0.1:{free_port()}", prefix, tmp_path, spool="off")
    async with running(publisher):
        assert publisher.ready() is not None
        with pytest.raises(UnavailableError):
            await publisher.publish(event(1))
    assert not any_file(tmp_path)


async def test_it_is_not_ready_without_a_broker_and_with_a_spool_that_is_nearly_full(
    prefix: str, tmp_path: Path
) -> None:
    publisher = spooling(f"127.0.0.1:{free_port()}", prefix, tmp_path, spool_bytes=10_000)
    async with running(publisher):
        assert publisher.ready() is None
        await publisher.publish(event(1, bytes(9_000)))
        assert str(publisher.ready()).endswith("the spool is nearly full")
        with pytest.raises(UnavailableError, match="the spool is full"):
            await publisher.publish(event(2, bytes(9_000)))


async def test_new_events_go_to_kafka_while_the_spool_is_drained(
    kafka: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    publisher = spooling(f"127.0.0.1:{free_port()}", prefix, tmp_path)
    spooled = 20_000
    async with running(publisher):
        for start in range(0, spooled, 2000):
            events = [event(number, bytes(1000)) for number in range(start, start + 2000)]
            assert set(await asyncio.gather(*map(publisher.publish, events))) == {"spool"}
    await create_topics(kafka.bootstrap_servers, prefix, ["captured", "bodies"])
    publisher = spooling(kafka.bootstrap_servers, prefix, tmp_path, kafka_timeout_seconds=20)
    new = spooled
    places = set()
    async with running(publisher):
        await until(lambda: draining(tmp_path))
        while segments(tmp_path):
            new += 1
            places.add(await publisher.publish(event(new)))
    assert places == {"kafka"}
    records = await read_all(kafka.bootstrap_servers, f"{prefix}captured")
    assert {record.key for record in records} == {b"id-%d" % i for i in range(new + 1)} - {
        b"id-%d" % spooled
    }


async def test_those_that_share_a_batch_with_a_refused_record_are_stored(
    kafka: KafkaServer, prefix: str
) -> None:
    """Nothing of the refused one can be stored here, so that it stays refused."""
    small = [
        NewTopic(f"{prefix}{name}", 1, 1, topic_configs={"max.message.bytes": "20000"})
        for name in ("captured", "bodies")
    ]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.create_topics(small)
    await admin.close()
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix)
    publisher = KafkaPublisher(settings, IngressSettings(kafka_timeout_seconds=20))
    async with running(publisher):
        await until(lambda: publisher.ready() is None)
        events = [event(number) for number in range(20)]
        events[7] = event(7, bytes(100_000))
        results = await asyncio.gather(*map(publisher.publish, events), return_exceptions=True)
        assert isinstance(results.pop(7), RefusedError)
        assert results == ["kafka"] * 19
        await until(lambda: publisher.ready() is None)
        assert [item.id for item in await publisher.deliver(events[5:10])] == ["id-7"]
    records = await read_all(kafka.bootstrap_servers, f"{prefix}captured")
    assert {record.key for record in records} == {b"id-%d" % i for i in range(20) if i != 7}


async def test_a_way_to_kafka_that_has_ended_is_told_and_one_that_is_stopped_is_not(
    prefix: str, tmp_path: Path
) -> None:
    async def fails() -> None:
        raise ValueError

    failed, stopped = asyncio.create_task(fails()), asyncio.create_task(asyncio.sleep(3600))
    stopped.cancel()
    await asyncio.wait([failed, stopped])
    assert ended("what connects", [stopped, failed]) == "what connects has ended (ValueError)"
    assert ended("what connects", [stopped]) is None
    publisher = create_publisher(
        KafkaSettings(bootstrap_servers="127.0.0.1:9", topic_prefix=prefix),
        IngressSettings(),
        tmp_path,
        CollectorRegistry(),
    )
    async with running(publisher):
        assert publisher.live() is None
