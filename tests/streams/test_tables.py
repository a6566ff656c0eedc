"""Tables of workers on a real broker: on disk, with standbys, and after what happens to topics."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import faust
import pytest
from aiokafka import AIOKafkaProducer
from structlog.testing import capture_logs
from structlog.typing import EventDict

from casewire.topics import admin
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS
from streams.app import create_streams_app, recovered
from streams.formats import NewerFormError
from streams.settings import StreamsSettings
from tests.end_to_end.system import System
from tests.kafka_tools import ConsumerRecord, create_topics
from tests.servers import KafkaServer
from tests.streams.made import Made, captured
from tests.streams.test_worker import case_body, ending, read_until, running, send

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

ON_DISK = StreamsSettings(session_timeout_seconds=6, tables="rocksdb", table_cache_mb=1)
CASES = 40


@pytest.fixture
async def settings(kafka: KafkaServer, prefix: str) -> KafkaSettings:
    await create_topics(kafka.bootstrap_servers, prefix, TOPICS, partitions=2)
    return KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=2
    )


async def send_cases(settings: KafkaSettings, seconds: float, cases: int = CASES) -> None:
    bodies = [case_body(f"c{i}", seconds, "a", at=str(seconds)) for i in range(cases)]
    await send(settings, "captured", [captured(body) for body in bodies])


def told(records: Sequence[ConsumerRecord]) -> dict[bytes | None, bytes | None]:
    return {record.key: record.value for record in records}


async def published(
    settings: KafkaSettings, seconds: float, cases: int = CASES
) -> dict[bytes | None, bytes | None]:
    """Return the states, once so many are from the snapshots of that time."""
    mark = f'"at":"{seconds}"'.encode()
    return told(
        await read_until(
            settings,
            "case-state",
            lambda found: sum(mark in (v or b"") for v in told(found).values()) == cases,
        )
    )


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return when a condition that nothing announces holds."""
    with anyio.fail_after(60):
        while True:
            if await holds():
                return
            await anyio.sleep(0.05)


async def has_recovered(app: faust.App) -> bool:
    return recovered(app)


async def create_again(settings: KafkaSettings, topic: str) -> None:
    """Create a topic that is being deleted, once the broker has forgotten it."""
    async with admin(settings) as client:

        async def is_gone() -> bool:
            return settings.topic(topic) not in await client.list_topics()

        await eventually(is_gone)
    await create_topics(settings.bootstrap_servers, settings.topic_prefix, [topic], 2)


def held(app: faust.App, name: str = "case-state") -> dict[bytes, bytes]:
    table: Any = app.tables[name]
    pairs = [pair for some in table.shelves.slices(1000) for pair in some]
    return {key: stored[8:] for key, stored in pairs}


@pytest.fixture
def log() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


def records_read(log: list[EventDict]) -> int:
    """Return how many records of the case states the last recovery has read."""
    found = [
        line["count"]
        for line in log
        if line["event"] == "a table is recovered"
        and (line["table"], line["partitions"]) == ("case-state", 2)
    ]
    log.clear()
    return int(found[-1])


async def test_a_worker_with_tables_on_disk_goes_on_from_what_is_there(
    settings: KafkaSettings, tmp_path: Path, log: list[EventDict]
) -> None:
    """Also when another worker went on meanwhile; a changelog that was made anew is read anew."""
    await send_cases(settings, 1.0)
    async with running(create_streams_app(settings, ON_DISK, tmp_path / "a")):
        first = await published(settings, 1.0)

    log.clear()
    async with running(create_streams_app(settings, ON_DISK, tmp_path / "a")) as app:
        await eventually(partial(has_recovered, app))
        assert held(app) == first
    assert records_read(log) <= 2

    await send_cases(settings, 60.0, 3)
    async with running(create_streams_app(settings, ON_DISK, tmp_path / "b")):
        second = await published(settings, 60.0, 3)
    assert records_read(log) == CASES

    async with running(create_streams_app(settings, ON_DISK, tmp_path / "a")) as app:
        await eventually(partial(has_recovered, app))
        assert held(app) == second
    assert records_read(log) <= 3 + 2

    async with admin(settings) as client:
        await client.delete_topics([settings.topic("case-state")])
    await create_again(settings, "case-state")
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
        for number in range(CASES * 2):
            await producer.send_and_wait(
                settings.topic("case-state"), b"{}", b"demo/n%d" % number, partition=number % 2
            )
    async with running(create_streams_app(settings, ON_DISK, tmp_path / "a")) as app:
        await eventually(partial(has_recovered, app))
        assert set(held(app)) == {b"demo/n%d" % number for number in range(CASES * 2)}
    anew = [line["table"] for line in log if line["event"] == "a table is read from the beginning"]
    assert anew == 2 * ["case-state"]


def followed(app: faust.App) -> int:
    """Return how many records of the case states the worker's tables have, owned or followed."""
    table: Any = app.tables["case-state"]
    marks = [table.shelves.mark(number) for number in range(2)]
    return sum(mark.offset + 1 for mark in marks if mark is not None)


async def test_a_standby_takes_over_without_reading_the_changelog_again(
    settings: KafkaSettings, tmp_path: Path, log: list[EventDict]
) -> None:
    owner = System(
        tmp_path / "owner", settings, {}, env={"CASEWIRE_STREAMS__STANDBY_REPLICAS": "1"}
    )
    owner.folder.mkdir()
    owner.write_config()
    owner.start("streams")
    standby = StreamsSettings(session_timeout_seconds=6, standby_replicas=1)
    try:
        await send_cases(settings, 1.0)
        await published(settings, 1.0)
        app = create_streams_app(settings, standby, tmp_path / "standby", address="127.0.0.1:1")
        async with running(app):

            async def follows(records: int) -> bool:
                return recovered(app) and followed(app) == records

            await eventually(partial(follows, CASES))
            assert len(app.assignor.assigned_standbys()) > 0
            await send_cases(settings, 60.0)
            states = await published(settings, 60.0)
            await eventually(partial(follows, 2 * CASES))
            assert len(held(app)) < CASES
            log.clear()
            owner.kill("streams")

            async def owns_all() -> bool:
                return recovered(app) and len(held(app)) == CASES

            await eventually(owns_all)
            assert held(app) == states
            assert records_read(log) == 0
            await send_cases(settings, 120.0)
            await published(settings, 120.0)
    finally:
        owner.stop()


async def test_a_state_of_a_newer_form_ends_the_worker_that_reads_it_back(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    newer = Made(b"{}", headers=[("casewire-version", b"1"), ("casewire-schema", b"case-state/2")])
    await send(settings, "case-state", [newer])
    app = create_streams_app(settings, ON_DISK, tmp_path)
    async with ending(app, NewerFormError, "run the newer Casewire that wrote them"):
        pass


async def test_a_changelog_that_ends_in_nothing_is_recovered(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    """The mark of a transaction has an offset and is no record, like a null that is compacted."""
    async with AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.topic_prefix
    ) as producer:
        for number in range(2):
            async with producer.transaction():
                await producer.send_and_wait(
                    settings.topic("case-state"), b"{}", b"demo/%d" % number, partition=number
                )
    app = create_streams_app(settings, StreamsSettings(), tmp_path)
    async with running(app):
        await eventually(partial(has_recovered, app))
        assert set(held(app)) == {b"demo/0", b"demo/1"}
