"""Clocks that jump, of ingress, workers and sinks alike: an hour back, a day or a month ahead."""

import random
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from aiokafka import AIOKafkaProducer

from casewire.simulation.delivery import deliver
from casewire.simulation.history import Plan, make_history
from casewire.sums import count_sums
from casewire.truth import compare
from schemas.envelope import EventIds
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS
from streams.app import create_streams_app
from tests.chaos.rig import FAULTS, Rig, run, running_rig, states_of
from tests.chaos.seeds import SEED
from tests.chaos.test_records import capture
from tests.kafka_tools import create_topics, read_all
from tests.servers import LocalKafka, running_kafka
from tests.streams.test_worker import SETTINGS, events, judged, of_request, read_until, running

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

HOUR_MS: Final = 60 * 60 * 1000
SECOND_NS: Final = 1_000_000_000
#: For libfaketime: right, an hour behind, nearly a day ahead, and so that gone cases are forgotten.
JUMPS: Final = ("+0", "-1h", "+23h", "+31d")


def clock(seconds: int) -> EventIds:
    """Return the ids of an ingress whose clock is so many seconds ahead."""
    right = datetime.now(UTC).timestamp()
    return EventIds(lambda: int((right + seconds) * SECOND_NS))


async def test_ingresses_whose_clocks_differ_by_a_day_end_in_the_truth(
    kafka: LocalKafka, prefix: str, tmp_path: Path
) -> None:
    await create_topics(kafka.bootstrap_servers, prefix, TOPICS, partitions=1)
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=1
    )
    chance = random.Random(SEED)  # noqa: S311 - it must be repeatable, not secret
    plan = Plan(domain="demo", cases=20, changes=100, format="mixed")
    history = make_history(SEED, datetime.now(UTC), plan)
    ingresses = [clock(seconds) for seconds in (0, -3600, 23 * 3600)]
    records = [
        of_request(request, chance.choice(ingresses))
        for request in deliver(history, SEED, duplicates=0.3, shuffled=True, broken=0)
    ]
    await capture(settings, records)
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        await read_until(settings, "deliveries", lambda found: judged(found) >= events(records))
    published = await read_all(settings.bootstrap_servers, settings.topic("case-state"))
    held = states_of(published, "demo")
    assert compare(history.truth, [state.to_json() for state in held.values()]) == []
    versions: dict[bytes | None, list[bytes]] = defaultdict(list)
    for record in published:
        versions[record.key].append(dict(record.headers)["casewire-version"])
    assert all(each == sorted(set(each), key=int) for each in versions.values())
    assert (await count_sums(settings)).match


@pytest.mark.parametrize("hours", [-40 * 24, 2, 31 * 24])
async def test_times_on_topics_are_the_brokers(kafka: LocalKafka, prefix: str, hours: int) -> None:
    """Else the broker refuses what is an hour ahead, and deletes at once what is a month old."""
    await create_topics(kafka.bootstrap_servers, prefix, ["captured"], partitions=1)
    now = datetime.now(UTC).timestamp() * 1000
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(
            f"{prefix}captured", b"v", b"k", timestamp_ms=int(now) + hours * HOUR_MS
        )
    (record,) = await read_all(kafka.bootstrap_servers, f"{prefix}captured")
    assert abs(record.timestamp - now) < HOUR_MS


def faketime(file: Path) -> dict[str, str]:
    """Return the environment in which the clock is as the file says, while a process runs."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "this test needs libfaketime: apt-get install faketime"
    file.write_text(JUMPS[0])
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


@pytest.mark.nightly
async def test_clocks_that_jump_while_everything_else_fails(tmp_path: Path) -> None:
    file = tmp_path / "clock"

    async def clock_jumps(rig: Rig) -> None:
        file.write_text(rig.chance.choice(JUMPS))

    faults = [each for fault in FAULTS for each in (clock_jumps, fault)]
    with running_kafka(tmp_path / "kafka") as broker:
        async with running_rig(tmp_path / "system", [broker], env=faketime(file)) as rig:
            await run(rig, SEED, faults, changes=1500)
