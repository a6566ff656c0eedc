"""Three brokers, everything three times, acknowledged by two: one may die at any moment."""

from pathlib import Path

import anyio
import pytest

from casewire.topics import admin, check_topics
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS
from tests.chaos.rig import Rig, load, running_rig, sending, settle
from tests.chaos.seeds import SEED
from tests.servers import running_cluster

pytestmark = [pytest.mark.anyio, pytest.mark.kafka, pytest.mark.nightly]

IN_SYNC_SECONDS = 60


async def in_sync(kafka: KafkaSettings) -> None:
    """Return when all brokers have all that was written."""
    with anyio.fail_after(IN_SYNC_SECONDS):
        async with admin(kafka) as client:
            while True:
                topics = await client.describe_topics([kafka.topic(name) for name in TOPICS])
                partitions = [each for topic in topics for each in topic["partitions"]]
                if all(len(each["isr"]) == kafka.replication for each in partitions):
                    return
                await anyio.sleep(0.2)


async def test_one_broker_of_three_dies_and_processing_goes_on(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as brokers:
        async with running_rig(tmp_path / "system", brokers, replication=3) as rig:
            rig.chance.seed(SEED)
            assert await check_topics(rig.system.kafka) == []
            for number, broker in enumerate(brokers):
                sent = load(SEED + number, changes=300)
                work = sending(rig, sent)
                await anyio.sleep(rig.chance.uniform(0, 1))
                broker.kill()
                await settle(rig, sent, [work])  # while it is away
                await anyio.to_thread.run_sync(broker.start)
                await in_sync(rig.system.kafka)
            again = load(SEED + len(brokers), changes=600)
            work = sending(rig, again)
            for fault in (Rig.kill_broker, Rig.kill_worker, Rig.freeze_broker, Rig.kill_sink) * 2:
                await fault(rig)
                await in_sync(rig.system.kafka)
            await settle(rig, again, [work])
