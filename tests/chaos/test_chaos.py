"""Everything that can happen to the processes, in the order of a seed, under load.

After each run: every state is the truth, nothing is missing, nothing older lies over newer, the
sums match to the last event.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from casewire.forwarder import Options, forward_all
from casewire.simulation.delivery import deliver
from casewire.simulation.history import Plan, make_history
from casewire.truth import compare
from schemas.case import CaseState
from schemas.settings import KafkaSettings
from tests.end_to_end.system import System, running_system
from tests.end_to_end.tables import held_cases, sqlite_query, unlike
from tests.servers import KafkaServer, running_kafka

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

#: Longer than a worker's session (6 s), so that its partitions have another owner when it wakes.
FROZEN_SECONDS = 8
BROKER_FROZEN_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Rig:
    system: System
    broker: KafkaServer
    chance: random.Random

    def workers(self) -> list[str]:
        return [role for role in self.system.processes if role.startswith("streams")]

    def some_worker(self) -> str:
        return self.chance.choice(self.workers())

    async def kill_worker(self) -> None:
        role = self.some_worker()
        self.system.kill(role)
        self.system.start(role)

    async def worker_joins_and_leaves(self) -> None:
        self.system.start("streams#3")
        await self.system.ready(["streams#3"], supervised=True)
        leaving = self.system.processes.pop("streams#3")
        leaving.send_signal(signal.SIGTERM)
        await asyncio.to_thread(leaving.wait, 30)

    async def freeze_worker(self) -> None:
        """Freeze a worker in mid-work, for longer than its session, and wake it again."""
        role = self.some_worker()
        process = self.system.processes[role]
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(FROZEN_SECONDS)
        process.send_signal(signal.SIGCONT)

    async def kill_broker(self) -> None:
        self.broker.kill()
        await asyncio.to_thread(self.broker.start)

    async def freeze_broker(self) -> None:
        assert self.broker.process is not None
        self.broker.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(BROKER_FROZEN_SECONDS)
        self.broker.process.send_signal(signal.SIGCONT)

    async def kill_sink(self) -> None:
        self.system.kill("sink files")
        self.system.start("sink files")

    def restart_the_dead(self) -> None:
        """Start anew what has ended by itself, as `casewire up` does."""
        for role, process in list(self.system.processes.items()):
            if process.poll() is not None:
                self.system.start(role)


FAULTS: dict[str, Callable[[Rig], Awaitable[None]]] = {
    "kill worker": Rig.kill_worker,
    "freeze worker": Rig.freeze_worker,
    "worker joins and leaves": Rig.worker_joins_and_leaves,
    "kill broker": Rig.kill_broker,
    "freeze broker": Rig.freeze_broker,
    "kill sink": Rig.kill_sink,
}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    with running_kafka(tmp_path / "kafka") as broker:
        settings = KafkaSettings(
            bootstrap_servers=broker.bootstrap_servers, topic_prefix="casewire.", partitions=4
        )
        sinks = {"files": {"type": "sql"}}
        async with running_system(System(tmp_path / "system", settings, sinks)) as system:
            system.start("streams#2")
            yield Rig(system, broker, random.Random(0))  # noqa: S311 - it must be repeatable


async def supervise(rig: Rig) -> None:
    while True:
        rig.restart_the_dead()
        await asyncio.sleep(0.5)


async def run(rig: Rig, seed: int, faults: list[str], changes: int) -> None:
    """Send a project while the faults happen one after the other; check what came out."""
    domain = f"seed-{seed}"
    rig.chance.seed(seed)
    plan = Plan(domain=domain, cases=changes // 8, changes=changes, format="mixed")
    history = make_history(seed, datetime.now(UTC), plan)
    requests = deliver(history, seed, duplicates=0.2, shuffled=True, broken=max(8, changes // 20))
    supervisor = asyncio.ensure_future(supervise(rig))
    options = Options(scale=1 / 3600)
    sending = asyncio.ensure_future(
        forward_all(requests, rig.system.address(domain), workers=8, options=options)
    )
    try:
        for fault in faults:
            await asyncio.sleep(rig.chance.uniform(0, 1))
            await FAULTS[fault](rig)
        report = await sending
        await rig.system.ready(list(rig.system.processes), supervised=True)
        await rig.system.caught_up()
    finally:
        supervisor.cancel()
        sending.cancel()
    assert Counter(result.outcome for result in report.results) == {"success": len(requests)}
    states = [
        CaseState.from_json(value) for value in await rig.system.values("case-state") if value
    ]
    held = {state.case_id: state for state in states if state.domain == domain}
    assert compare(history.truth, [state.to_json() for state in held.values()]) == []
    rows = sqlite_query(rig.system.folder / "data" / "sqlite" / f"{domain}.db")
    assert list(unlike(held, held_cases(rows))) == []
    sums = await rig.system.sums()
    assert sums.lost == []
    assert all(judged.unjudged == [] for judged in sums.judged.values())


async def test_every_fault_once(rig: Rig) -> None:
    await run(rig, 1, list(FAULTS), changes=300)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(int(os.environ.get("CHAOS_RUNS", "10"))))
async def test_faults_in_any_order(rig: Rig, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - it must be repeatable, not secret
    await run(rig, seed + 100, chance.choices(list(FAULTS), k=12), changes=1500)


@pytest.mark.nightly
async def test_commits_go_on_after_the_broker_died_ten_times(rig: Rig) -> None:
    await run(rig, 7, ["kill broker", "freeze broker"] * 10, changes=1500)


@pytest.mark.nightly
async def test_workers_killed_twenty_times(rig: Rig) -> None:
    await run(rig, 8, ["kill worker"] * 20, changes=1500)


@pytest.mark.nightly
async def test_frozen_workers_again_and_again(rig: Rig) -> None:
    await run(rig, 9, ["freeze worker"] * 10, changes=1500)
