"""A new release comes: each process of each role is replaced, one after the other, under load.

What it must keep: nothing is lost, no request is refused, and no record of any stage waits
for longer than a worker's session.
"""

import asyncio
import itertools
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import orjson
import pytest

from casewire.forwarder import Report
from casewire.reading import read_topic
from schemas.settings import KafkaSettings
from tests.chaos.rig import Rig, load, sending, settle
from tests.chaos.seeds import SEED
from tests.end_to_end.system import System, running_system
from tests.servers import running_kafka

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

SOURCES: Final = ("captured", "cases", "case-changes", "forms", "case-state")
ROLES: Final = ("ingress", "streams", "sink files")
SESSION_MS: Final = 6_000
#: In parts, so that all partitions have something to do all the time.
PARTS: Final = 200
PART_SECONDS: Final = 0.1


@pytest.fixture
async def pairs(tmp_path: Path) -> AsyncIterator[Rig]:
    """Two processes of each role, the ingress behind one port."""
    with running_kafka(tmp_path / "kafka") as broker:
        settings = KafkaSettings(
            bootstrap_servers=broker.bootstrap_servers, topic_prefix="casewire.", partitions=2
        )
        system = System(tmp_path / "system", settings, {"files": {"type": "sql"}})
        async with running_system(system):
            for role in ROLES:
                system.start(f"{role}#2")
            await system.ready([f"{role}#2" for role in ROLES])
            yield Rig(system, [broker])


async def replaced(system: System, role: str) -> None:
    leaving = system.processes.pop(role)
    leaving.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(leaving.wait, 30) == 0
    system.start(role)
    await system.ready([role])


async def longest_waits(settings: KafkaSettings) -> dict[str, int]:
    """Return for how long a record waited at most until it was dealt with, in ms, by stage."""
    waits: defaultdict[str, int] = defaultdict(int)
    appended: dict[tuple[str, int, int], int] = {}
    for topic in SOURCES:
        async for record in read_topic(settings, topic):
            appended[topic, record.partition, record.offset] = record.timestamp
    async for record in read_topic(settings, "deliveries"):
        told = orjson.loads(record.value or b"")
        place = told["topic"].removeprefix(settings.topic_prefix), told["partition"]
        began = appended.get((*place, told.get("first_offset")))
        if began is not None:
            stage = f"{told['stage']}: {place[0]}"
            waits[stage] = max(waits[stage], record.timestamp - began)
    return waits


@pytest.mark.nightly
async def test_each_process_is_replaced_and_nothing_is_lost_or_stands_still(pairs: Rig) -> None:
    system = pairs.system
    sent = load(SEED, 600)
    work: list[asyncio.Task[Report]] = []
    replacing = asyncio.Event()
    replacing.set()

    async def forward() -> None:
        """Send every part, and then all of them again for as long as it takes."""
        for number in itertools.count():
            if number >= PARTS and not replacing.is_set():
                return
            work.append(sending(pairs, sent, slice(number % PARTS, None, PARTS)))
            if replacing.is_set():
                await asyncio.sleep(PART_SECONDS)  # the pace of the load

    forwarding = asyncio.create_task(forward())
    for role in list(system.processes):
        await replaced(system, role)
    replacing.clear()
    await forwarding
    await asyncio.gather(*work[PARTS:])
    await settle(pairs, sent, work[:PARTS])
    waits = await longest_waits(system.kafka)
    assert {"state: cases", "sink:files: case-state"} <= waits.keys()
    assert {stage: wait for stage, wait in waits.items() if wait > SESSION_MS} == {}
