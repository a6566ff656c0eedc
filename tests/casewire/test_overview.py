"""The figures that all who look see: flows, lag in events and seconds, what is open."""

import time
from collections.abc import Mapping

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from casewire.failures import Failures
from casewire.overview import Flow, Overview, Reader, Watch
from schemas.dead_letter import DeadLetterState
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS
from tests.casewire.test_dead_letters import CASE, FAILED_AT, lettered
from tests.kafka_tools import create_topics
from tests.servers import KafkaServer
from tests.streams.made import Made, captured
from tests.streams.test_worker import send

pytestmark = pytest.mark.anyio

HOUR = 3600


@pytest.fixture
async def settings(kafka: KafkaServer, prefix: str) -> KafkaSettings:
    # The age of a record is for the test to say.
    more = {"message.timestamp.type": "CreateTime"}
    await create_topics(kafka.bootstrap_servers, prefix, TOPICS, partitions=2, more=more)
    return KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=2
    )


async def append(kafka: KafkaSettings, topic: str, *ages: int) -> None:
    """Append records to partition 1 that are so many seconds old."""
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        for age in ages:
            at = int((time.time() - age) * 1000)
            await producer.send_and_wait(kafka.topic(topic), b"x", b"k", 1, at)


async def commit(kafka: KafkaSettings, role: str, offsets: Mapping[str, int]) -> None:
    """Commit offsets of partition 1 of topics."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=kafka.group(role),
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        places = {TopicPartition(kafka.topic(name), 1): at for name, at in offsets.items()}
        consumer.assign(list(places))
        await consumer.commit(places)
    finally:
        await consumer.stop()


def reader(look: Overview, role: str, topic: str) -> Reader:
    (found,) = [each for each in look.readers if (each.role, each.topic) == (role, topic)]
    return found


def flow(look: Overview, name: str) -> Flow:
    (found,) = [each for each in look.flows if each.name == name]
    return found


async def test_lag_is_told_in_events_and_in_the_age_of_the_oldest(settings: KafkaSettings) -> None:
    await append(settings, "case-state", 3 * HOUR, 2 * HOUR, HOUR)
    async with Watch(settings, {"db": ["case-state"]}) as watch:
        first = await watch.look()
        never = reader(first, "sink-db", "case-state")
        assert never.lag == 3
        assert 3 * HOUR <= never.lag_seconds < 4 * HOUR
        assert (never.per_second, flow(first, "case-state").per_second) == (None, None)
        assert reader(first, "sink-db", "replays") == Reader("sink-db", "replays", 0, 0.0, None)

        await commit(settings, "sink-db", {"case-state": 2})
        later = reader(await watch.look(), "sink-db", "case-state")
        assert later.lag == 1
        assert HOUR <= later.lag_seconds < 2 * HOUR
        assert later.per_second
        assert later.per_second > 0

        await commit(settings, "sink-db", {"case-state": 3})
        assert reader(await watch.look(), "sink-db", "case-state").lag_seconds == 0


async def test_readers_that_wait_at_different_records_have_each_its_own_age(
    settings: KafkaSettings,
) -> None:
    await append(settings, "case-state", 3 * HOUR, HOUR)
    await append(settings, "captured", 5 * HOUR)
    await commit(settings, "sink-b", {"case-state": 1})
    async with Watch(settings, {"a": ["case-state"], "b": ["case-state"]}) as watch:
        look = await watch.look()
    found = {(each.role, each.topic): each.lag_seconds // HOUR for each in look.readers if each.lag}
    assert found == {
        ("streams", "captured"): 5,
        ("sink-a", "case-state"): 3,
        ("sink-b", "case-state"): 1,
    }


async def test_rates_are_of_what_came_between_two_looks(settings: KafkaSettings) -> None:
    await append(settings, "captured", 0)
    async with Watch(settings, {}) as watch:
        await watch.look()
        still = flow(await watch.look(), "captured")
        assert still == Flow("captured", 1, 0.0)
        await append(settings, "captured", 0, 0)
        more = flow(await watch.look(), "captured")
        assert more.records == 3
        assert more.per_second
        assert flow(await watch.look(), "captured") == Flow("captured", 3, 0.0)


async def test_dead_letters_are_counted_until_they_are_closed(settings: KafkaSettings) -> None:
    letter = lettered(captured(b"{"))
    async with Watch(settings, {}) as watch:
        assert (await watch.look()).causes == []
        await send(settings, "dead-letters", [letter, CASE, CASE])
        assert [(each.stage, each.count) for each in (await watch.look()).causes] == [
            ("decode", 1),
            ("sink:files", 1),
        ]
        await send(settings, "dead-letter-state", [closed(letter, offset=0)])
        assert [each.stage for each in (await watch.look()).causes] == ["sink:files"]
    async with Watch(settings, {}) as another:
        (cause,) = (await another.look()).causes
    assert (cause.cause, cause.first, cause.last) == ("rejected_by_target", FAILED_AT, FAILED_AT)


def test_a_letter_that_came_again_after_its_replay_is_open_and_one_that_is_deleted_is_not() -> None:
    failures = Failures()
    letter = lettered(captured(b"{"))
    failures.take_letter(letter)
    failures.take_state(closed(letter, offset=0))
    assert failures.causes() == []
    again = Made(letter.value, letter.key, letter.headers, letter.topic, offset=4)
    failures.take_letter(again)
    assert [each.count for each in failures.causes()] == [1]
    failures.forget({0: 5})
    assert failures.causes() == []


def closed(letter: Made, offset: int) -> Made:
    state = DeadLetterState(
        status="discarded", offset=offset, by="x", at=FAILED_AT, reason="", repair=None
    )
    (id_,) = [value for name, value in letter.headers if name == "ce_id"]
    return Made(state.to_json(), id_, [], "casewire.dead-letter-state")
