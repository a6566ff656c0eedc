"""Moving to another cluster: every record at the offset it had, whatever happens on the way."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from hypothesis import given, strategies as st

from casewire.move import Filled, Span, filled, move
from casewire.progress import committed_offsets, end_offsets, first_offsets
from casewire.reading import read_topic
from casewire.topics import admin, check_topics, create_topics
from kafka_clients.login import client_options
from schemas.errors import CasewireError, ConfigError, UnavailableError
from schemas.settings import KafkaSettings
from tests.servers import KafkaServer, LocalKafka, running_kafka

PARTITIONS = 2


class Kept:
    """A record as a consumer gives it."""

    def __init__(self, offset: int) -> None:
        self.offset, self.timestamp = offset, 1000 + offset
        self.key, self.value, self.headers = b"k%d" % offset, b"v%d" % offset, [("h", b"1")]


async def _yielded(records: Sequence[Kept]) -> AsyncIterator[Kept]:
    for record in records:
        yield record


@given(
    kept=st.sets(st.integers(0, 30)), start=st.integers(0, 20), end=st.integers(0, 40),
    held=st.integers(0, 40), compacted=st.booleans(),
)  # fmt: skip
def test_each_offset_gets_its_record_wherever_a_run_goes_on(
    kept: set[int], start: int, end: int, held: int, compacted: bool
) -> None:
    start = 0 if compacted else start
    end = max([start, end, *(offset + 1 for offset in kept)])
    span = Span("t", 0, start, end, min(held, end))
    left = [Kept(offset) for offset in sorted(kept) if offset >= max(span.held, start)]

    async def all_filled() -> list[Filled]:
        return [each async for each in filled(_yielded(left), span, compacted=compacted)]

    found = asyncio.run(all_filled())
    assert len(found) == span.end - span.held
    for record in left:
        same = Filled(record.key, record.value, record.headers, record.timestamp)
        assert found[record.offset - span.held] == same
    keys = {record.key for record in left}
    fillers = {each.key for each in found} - keys
    assert fillers <= {None, b"casewire.moved/nothing"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalKafka]:
    with running_kafka(tmp_path / "cluster") as server:
        yield server


@pytest.fixture
async def source(kafka: KafkaServer, prefix: str) -> KafkaSettings:
    """Topics with events whose first ones are deleted, and a group that has read some."""
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=PARTITIONS
    )
    await create_topics(settings)
    async with AIOKafkaProducer(**client_options(settings)) as producer:
        for number in range(50):
            for topic in ("captured", "case-state"):
                await producer.send(
                    settings.topic(topic), b"v%d" % number, b"demo/%d" % (number % 7),
                    partition=number % PARTITIONS, headers=[("ce_id", b"%d" % number)],
                )  # fmt: skip
    place = TopicPartition(settings.topic("captured"), 0)
    async with admin(settings) as client:
        await client.delete_records({place: RecordsToDelete(before_offset=10)})
    async with AIOKafkaConsumer(
        **client_options(settings), group_id=settings.group("streams"), enable_auto_commit=False
    ) as consumer:
        consumer.assign([place])
        await consumer.commit({place: 17})
    return settings


async def records(settings: KafkaSettings, topic: str) -> Sequence[object]:
    found = [
        (r.partition, r.offset, r.key, r.value, r.headers, r.timestamp)
        async for r in read_topic(settings, topic)
    ]
    return sorted(found)


async def assert_moved(source: KafkaSettings, target: KafkaSettings) -> None:
    for topic in ("captured", "case-state"):
        assert await records(target, topic) == await records(source, topic)
    names = [source.topic("captured"), source.topic("case-state"), source.topic("alerts")]
    assert await first_offsets(target, names) == await first_offsets(source, names)
    assert await end_offsets(target, names) == await end_offsets(source, names)
    async with admin(target) as client:
        committed = await committed_offsets(client, target.group("streams"))
    assert committed == {(source.topic("captured"), 0): 17}
    assert await check_topics(target) == []


@pytest.mark.anyio
@pytest.mark.kafka
async def test_events_times_and_positions_are_the_same_there_and_a_second_move_changes_nothing(
    source: KafkaSettings, cluster: LocalKafka
) -> None:
    target = msgspec.structs.replace(source, bootstrap_servers=cluster.bootstrap_servers)
    said: list[str] = []

    class KilledError(Exception):
        """What stands for kill -9 between two partitions."""

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            raise KilledError

    with pytest.raises(KilledError):
        await move(source, target, say)
    await move(source, target, said.append)
    await assert_moved(source, target)
    again: list[str] = []
    await move(source, target, again.append)
    assert again == ["1 groups go on where they were"]
    await assert_moved(source, target)

    async with AIOKafkaProducer(**client_options(target)) as producer:
        await producer.send_and_wait(target.topic("captured"), b"later", partition=1)
    with pytest.raises(UnavailableError, match="has been used since it was moved"):
        await move(source, target, said.append)


@pytest.mark.anyio
@pytest.mark.kafka
async def test_nothing_is_moved_while_a_role_is_at_work(source: KafkaSettings) -> None:
    target = msgspec.structs.replace(source, bootstrap_servers="127.0.0.1:9")
    async with AIOKafkaConsumer(
        source.topic("captured"), **client_options(source), group_id=source.group("streams")
    ):
        with pytest.raises(UnavailableError, match="-streams is at work; stop all roles"):
            await move(source, target, print, patience=0)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "is where everything is"),
        ({"bootstrap_servers": "k:1", "partitions": 3}, "partitions is 3 there and 2 here"),
        ({"bootstrap_servers": "k:1", "topic_prefix": "x."}, "topic_prefix is x. there"),
    ],
)
async def test_a_cluster_where_offsets_would_not_fit_is_refused(
    changes: dict[str, str | int], said: str
) -> None:
    source = KafkaSettings(bootstrap_servers="s:1", partitions=PARTITIONS)
    with pytest.raises(ConfigError, match=said) as raised:
        await move(source, msgspec.structs.replace(source, **changes), print)
    assert isinstance(raised.value, CasewireError)
