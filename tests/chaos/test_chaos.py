"""Everything that can happen to the processes, in the order of a seed, under load.

After each run: every state is the truth, nothing is missing, nothing older lies over newer, the
sums match to the last event.
"""

import random

import pytest

from tests.chaos.rig import FAULTS, Rig, run
from tests.chaos.seeds import RUNS, SEED

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


async def test_every_fault_once(rig: Rig) -> None:
    await run(rig, SEED, FAULTS, changes=300)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
async def test_faults_in_any_order(rig: Rig, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - it must be repeatable, not secret
    await run(rig, seed, chance.choices(FAULTS, k=12), changes=1500)


@pytest.mark.nightly
async def test_commits_go_on_after_the_broker_died_ten_times(rig: Rig) -> None:
    await run(rig, SEED, [Rig.kill_broker, Rig.freeze_broker] * 10, changes=1500)


@pytest.mark.nightly
async def test_workers_killed_twenty_times(rig: Rig) -> None:
    await run(rig, SEED, [Rig.kill_worker] * 20, changes=1500)


@pytest.mark.nightly
async def test_workers_join_and_leave(rig: Rig) -> None:
    await run(rig, SEED, [Rig.worker_joins_and_leaves] * 5, changes=1500)


@pytest.mark.nightly
async def test_frozen_workers_again_and_again(rig: Rig) -> None:
    await run(rig, SEED, [Rig.freeze_worker] * 10, changes=1500)
