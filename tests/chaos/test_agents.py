"""Exceptions in agents: a judge's make a dead letter; any other ends the process.

They are injected by programs that give the worker of `casewire streams` a part that fails.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import anyio
import faust
import pytest

from casewire.progress import committed_offsets
from casewire.sums import count_sums
from casewire.topics import admin
from schemas.settings import KafkaSettings
from streams.batches.consumer import require_crashing
from tests.chaos.test_records import capture, causes
from tests.end_to_end.system import System, create
from tests.kafka_tools import read_all
from tests.servers import LocalKafka
from tests.streams.made import captured
from tests.streams.test_batches import app_that
from tests.streams.test_worker import case_body, judged, read_until, states

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

EVENTS: Final = 300
POISONED: Final = b'"n":"poisoned"'

JUDGE_THAT_FAILS: Final = f"""
import streams.app
from casewire.__main__ import main

make_judge = streams.app.case_judge

def case_judge(**options):
    judge = make_judge(**options)
    def failing(record, held, fold=None):
        if {POISONED!r} in record.value:
            raise RuntimeError("injected")
        return judge(record, held, fold)
    return failing

streams.app.case_judge = case_judge
main()
"""

#: Everything is sent for the batch, and nothing acknowledged yet.
AGENT_THAT_FAILS: Final = f"""
import streams.agents
from casewire.__main__ import main

tell = streams.agents._Verdicts.tell

async def failing(self, wiring):
    await tell(self, wiring)
    if any({POISONED!r} in record.value for record in self._batch.records):
        raise RuntimeError("injected")

streams.agents._Verdicts.tell = failing
main()
"""


#: As Kafka's client does when its thread has died.
WORKER_THAT_HANGS: Final = """
import asyncio
import contextlib
import streams.app
from casewire.__main__ import main

async def stop_app(app):
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)

streams.app.stop_app = stop_app
streams.app.END_SECONDS = 1
main()
"""


@pytest.fixture
async def system(kafka: LocalKafka, prefix: str, tmp_path: Path) -> AsyncIterator[System]:
    """Topics with a captured event of each of many cases; every hundredth says `poisoned`."""
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=1
    )
    system = System(tmp_path / "system", settings, sinks={})
    await create(system)
    bodies = [
        case_body(f"c{i}", 60, "ab", n="poisoned" if i % 100 == 50 else str(i))
        for i in range(EVENTS)
    ]
    await capture(settings, [captured(body) for body in bodies])
    yield system
    system.stop()


async def done(system: System) -> None:
    await read_until(system.kafka, "deliveries", lambda found: judged(found) >= EVENTS)
    await system.caught_up()


async def test_what_the_judge_fails_on_is_a_dead_letter_and_the_rest_goes_on(
    system: System,
) -> None:
    system.start("streams", program=["-c", JUDGE_THAT_FAILS])
    await done(system)
    assert await causes(system.kafka) == {("state", "unexpected"): EVENTS // 100}
    bootstrap, topic = system.kafka.bootstrap_servers, system.kafka.topic("case-state")
    found = states(await read_all(bootstrap, topic))
    assert len(found) == EVENTS - EVENTS // 100
    assert all(state.properties["n"] != "poisoned" for state in found.values())
    assert (await count_sums(system.kafka)).match


async def test_a_failing_agent_ends_the_process_and_the_next_does_its_batch_again(
    system: System,
) -> None:
    system.start("streams", program=["-c", AGENT_THAT_FAILS])
    failed = system.processes.pop("streams")
    with anyio.fail_after(60):
        assert await anyio.to_thread.run_sync(failed.wait) != 0
    records = await read_all(system.kafka.bootstrap_servers, system.kafka.topic("cases"))
    first = next(r.offset for r in records if POISONED in (r.value or b""))
    async with admin(system.kafka) as client:
        committed = await committed_offsets(client, system.kafka.group("streams"))
    assert committed.get((system.kafka.topic("cases"), 0), 0) <= first
    system.start("streams")
    await done(system)
    bootstrap, topic = system.kafka.bootstrap_servers, system.kafka.topic("case-state")
    found = await read_all(bootstrap, topic)
    assert len(states(found)) == EVENTS
    assert await causes(system.kafka) == {}
    assert (await count_sums(system.kafka)).match


async def test_a_worker_that_cannot_stop_ends_all_the_same(system: System) -> None:
    """One of the two has no partition, and is ready to get one."""
    system.start("streams#2")
    system.start("streams", program=["-c", WORKER_THAT_HANGS])
    await system.ready(["streams", "streams#2"])
    hung = system.processes.pop("streams")
    hung.terminate()
    with anyio.fail_after(20):
        assert await anyio.to_thread.run_sync(hung.wait) == 0
    assert "it could not stop in order, and ends by force" in system.log("streams").read_text()


def test_an_agent_that_would_survive_its_failure_is_not_started(tmp_path: Path) -> None:
    app, _ = app_that(KafkaSettings(bootstrap_servers="127.0.0.1:9"), tmp_path, lambda record: None)
    require_crashing(app.agents.values())

    async def careless(stream: faust.StreamT[bytes]) -> None:
        async for _ in stream:
            pass

    app.agent(app.topic("casewire.forms"))(careless)
    with pytest.raises(TypeError, match="careless"):
        require_crashing(app.agents.values())
