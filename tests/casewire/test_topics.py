import asyncio
from dataclasses import replace

import orjson
import pytest
from aiokafka.admin import NewTopic

from casewire.cli import run
from casewire.topics import Actual, admin, check_topics, create_topics, differences, wanted_config
from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS
from tests.servers import KafkaServer, free_port

pytestmark = pytest.mark.anyio

RIGHT = KafkaSettings(bootstrap_servers="x:1", partitions=2)


def settings(kafka: KafkaServer, prefix: str, partitions: int = 2) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=partitions
    )


def as_wanted(kafka: KafkaSettings) -> dict[str, Actual]:
    return {
        kafka.topic(name): Actual(
            partitions=kafka.partitions,
            replication=kafka.replication,
            config=wanted_config(kafka, name),
        )
        for name in TOPICS
    }


def test_topics_as_wanted_do_not_differ() -> None:
    assert differences(RIGHT, as_wanted(RIGHT)) == []


@pytest.mark.parametrize("name", TOPICS)
def test_every_setting_of_every_topic_is_compared(name: str) -> None:
    full = RIGHT.topic(name)
    right = as_wanted(RIGHT)
    for key in wanted_config(RIGHT, name):
        wrong = replace(right[full], config={**right[full].config, key: "other"})
        (found,) = differences(RIGHT, right | {full: wrong})
        assert (found.topic, found.what, found.found) == (full, key, "other")
        assert f"--topic {full} --add-config {key}={found.wanted}" in found.remedy
    (missing,) = differences(RIGHT, {key: right[key] for key in right if key != full})
    assert str(missing) == f"topic {full} is missing; run casewire topics create"


async def test_topics_are_created_once_and_are_then_right(kafka: KafkaServer, prefix: str) -> None:
    wanted = settings(kafka, prefix)
    assert len(await check_topics(wanted)) == len(TOPICS)
    assert set(await create_topics(wanted)) == set(map(wanted.topic, TOPICS))
    assert await create_topics(wanted) == []
    assert await check_topics(wanted) == []


async def test_a_wrong_topic_is_reported_and_left_as_it_is(kafka: KafkaServer, prefix: str) -> None:
    wanted = settings(kafka, prefix)
    async with admin(wanted) as client:
        wrong = {"cleanup.policy": "compact"}
        await client.create_topics(
            [
                NewTopic(
                    f"{prefix}cases", num_partitions=1, replication_factor=1, topic_configs=wrong
                )
            ]
        )
    await create_topics(wanted)
    found = {each.what: each.found for each in await check_topics(wanted)}
    assert found["partitions"] == "1"
    assert found["cleanup.policy"] == "compact"
    assert {each.topic for each in await check_topics(wanted)} == {f"{prefix}cases"}


async def test_two_processes_may_create_the_topics_at_once(kafka: KafkaServer, prefix: str) -> None:
    wanted = settings(kafka, prefix, partitions=1)
    await asyncio.gather(create_topics(wanted), create_topics(wanted))
    assert await check_topics(wanted) == []


async def test_what_the_broker_refuses_is_said(kafka: KafkaServer, prefix: str) -> None:
    too_many = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, replication=3
    )
    with pytest.raises(UnavailableError, match=r"refused topic .*replication"):
        await create_topics(too_many)


def test_the_commands_print_lists_and_tell_by_their_status(
    kafka: KafkaServer, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "CASEWIRE_KAFKA__TOPIC_PREFIX": prefix,
        "CASEWIRE_KAFKA__PARTITIONS": "1",
    }
    assert run(["topics", "check", "--json"], env) == 1
    assert len(orjson.loads(capsys.readouterr().out)) == len(TOPICS)
    assert run(["topics", "create"], env) == 0
    assert f"created {prefix}captured" in capsys.readouterr().out
    assert run(["topics", "create"], env) == 0
    assert run(["topics", "check"], env) == 0
    assert "all topics are as they should be" in capsys.readouterr().out
    assert run(["topics", "check"], env | {"CASEWIRE_KAFKA__PARTITIONS": "2"}) == 1
    assert "has partitions=1 instead of 2; set [kafka] partitions = 1" in capsys.readouterr().out


def test_no_broker_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    server = f"127.0.0.1:{free_port()}"
    assert run(["topics", "check"], {"KAFKA_BOOTSTRAP_SERVERS": server}) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"casewire: no Kafka broker answers at {server}")
    assert "Traceback" not in error
