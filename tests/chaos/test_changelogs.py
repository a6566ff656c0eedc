"""Changelogs that the broker has compacted: with holes, and with their heads gone."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from casewire.simulation.delivery import deliver
from casewire.simulation.history import Plan, make_history
from casewire.sums import count_sums
from casewire.topics import admin
from casewire.truth import compare
from schemas.case import CaseState
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS
from streams.app import KINDS, create_streams_app
from tests.chaos.rig import states_of
from tests.chaos.seeds import SEED
from tests.chaos.test_records import capture
from tests.kafka_tools import ConsumerRecord, create_topics, read_all
from tests.servers import LocalKafka, running_kafka
from tests.streams.made import Made
from tests.streams.test_worker import (
    SETTINGS,
    compared,
    events,
    judged,
    of_request,
    read_until,
    running,
)

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

PARTITIONS: Final = 2
#: Captured at once, and so about what a segment of a changelog holds.
SLICE: Final = 20
CHANGELOGS: Final = (*(f"{kind}-state" for kind in KINDS), "case-folds")
#: A segment a batch; cleaned at once, the nulls too. `delete` lets a test cut the head off.
COMPACTED: Final = {
    "cleanup.policy": "compact,delete",
    "retention.ms": "-1",
    "segment.ms": "1",
    "min.cleanable.dirty.ratio": "0.001",
    "delete.retention.ms": "0",
}


@pytest.fixture
def eager(tmp_path: Path) -> Iterator[LocalKafka]:
    """A broker that compacts as soon as it can."""
    with running_kafka(tmp_path / "kafka", {"log.cleaner.backoff.ms": "100"}) as server:
        yield server


async def work(settings: KafkaSettings, folder: Path, records: Sequence[Made], total: int) -> None:
    """Have a new worker, which knows nothing but the topics, process records until `total`."""
    async with running(create_streams_app(settings, SETTINGS, folder)):
        for start in range(0, len(records), SLICE):
            await capture(settings, records[start : start + SLICE])
        await read_until(settings, "deliveries", lambda found: judged(found) >= total)


async def with_holes(settings: KafkaSettings, topic: str) -> list[ConsumerRecord]:
    """Return the records of a topic when the broker has compacted it, at least in part."""
    with anyio.fail_after(60):
        while True:
            records = await read_all(settings.bootstrap_servers, settings.topic(topic))
            offsets = [
                [record.offset for record in records if record.partition == partition]
                for partition in range(PARTITIONS)
            ]
            if any(each and each[-1] - each[0] >= len(each) for each in offsets):
                return records
            await anyio.sleep(0.2)


async def behead(settings: KafkaSettings, topic: str) -> Mapping[int, int]:
    """Have each partition begin at the first of the last records of its keys; return where."""
    records = await read_all(settings.bootstrap_servers, settings.topic(topic))
    last = {(record.partition, record.key): record.offset for record in records}
    starts = {
        partition: min(offset for (number, _), offset in last.items() if number == partition)
        for partition in {number for number, _ in last}
    }
    name = settings.topic(topic)
    async with admin(settings) as client:
        await client.delete_records(
            {
                TopicPartition(name, partition): RecordsToDelete(before_offset=offset)
                for partition, offset in starts.items()
            }
        )
    left = await read_all(settings.bootstrap_servers, name)
    assert {record.partition: record.offset for record in reversed(left)} == starts
    return starts


async def held(settings: KafkaSettings) -> Mapping[str, CaseState]:
    records = await read_all(settings.bootstrap_servers, settings.topic("case-state"))
    return states_of(records, "demo")


async def test_a_worker_recovers_from_changelogs_with_holes_and_without_heads(
    eager: LocalKafka, tmp_path: Path
) -> None:
    settings = KafkaSettings(
        bootstrap_servers=eager.bootstrap_servers, topic_prefix="casewire.", partitions=PARTITIONS
    )
    others = TOPICS.keys() - set(CHANGELOGS)
    await create_topics(settings.bootstrap_servers, "casewire.", others, PARTITIONS)
    await create_topics(settings.bootstrap_servers, "casewire.", CHANGELOGS, PARTITIONS, COMPACTED)
    plan = Plan(domain="demo", cases=15, changes=100, format="mixed")
    history = make_history(SEED, datetime.now(UTC), plan)
    requests = deliver(history, SEED, duplicates=0.3, shuffled=True, broken=0)
    half = len(requests) // 2
    parts = [[of_request(each) for each in part] for part in (requests[:half], requests[half:])]
    first, both = events(parts[0]), events(parts[0]) + events(parts[1])

    await work(settings, tmp_path / "1", parts[0], first)
    await with_holes(settings, "case-state")
    starts = [await behead(settings, topic) for topic in CHANGELOGS]
    assert any(offset > 0 for each in starts for offset in each.values())
    before = await held(settings)

    # What is known already changes nothing: so all of it was recovered.
    again = [of_request(each) for each in requests[:half]]
    await work(settings, tmp_path / "2", again, first + events(again))
    after = await held(settings)
    assert {key: compared(each) for key, each in after.items()} == {
        key: compared(each) for key, each in before.items()
    }

    await work(settings, tmp_path / "3", parts[1], both + events(again))
    states = await held(settings)
    assert compare(history.truth, [state.to_json() for state in states.values()]) == []
    assert (await count_sums(settings)).match
