"""From HQ's requests to tables: whatever the order of arrival, the truth comes out.

The roles are processes of their own; the requests are those of a simulated project, made anew from
a random seed that its domain names. Each example is a domain of its own in the same running system.
"""

import asyncio
import itertools
import random
import secrets
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from casewire.forwarder import Options, Report, forward_all
from casewire.hq import Request
from casewire.simulation.delivery import deliver
from casewire.simulation.history import Format, History, Plan, make_history
from casewire.truth import compare
from schemas.case import CaseState
from schemas.dead_letter import DeadLetter
from tests.end_to_end.conftest import DATABASE
from tests.end_to_end.system import System
from tests.end_to_end.tables import held_cases, postgres_query, sqlite_query, unlike
from tests.servers import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.kafka, pytest.mark.postgres]

NUMBERS = itertools.count()


def new_project() -> tuple[int, str]:
    """Return a new seed and the domain that names it, so that a failure can be repeated."""
    seed = secrets.randbelow(2**32)
    return seed, f"project-{next(NUMBERS)}-seed-{seed}"


async def forward(system: System, domain: str, requests: list[Request]) -> Report:
    report = await forward_all(
        requests, system.address(domain), workers=16, options=Options(scale=1e-4)
    )
    assert Counter(result.outcome for result in report.results) == {"success": len(requests)}
    return report


def make(seed: int, domain: str, how: Format, *, decidable: bool) -> tuple[History, list[Request]]:
    plan = Plan(domain=domain, cases=12, changes=60, format=how, decidable=decidable)
    history = make_history(seed, datetime.now(UTC), plan)
    return history, deliver(history, seed, duplicates=0.3, shuffled=True, broken=8)


async def states_of(system: System, domain: str) -> Mapping[str, CaseState]:
    """Return the newest state of each case of a domain, which is the last on its partition."""
    states = [CaseState.from_json(value) for value in await system.values("case-state") if value]
    return {state.case_id: state for state in states if state.domain == domain}


async def check(system: System, history: History, postgres: PostgresServer) -> None:
    """Assert that the topic, SQLite and PostgreSQL agree, and with the truth if it is decided."""
    domain = history.truth.domain
    states = await states_of(system, domain)
    if history.truth.decidable:
        assert compare(history.truth, [state.to_json() for state in states.values()]) == []
    sqlite = sqlite_query(system.folder / "data" / "sqlite" / f"{domain}.db")
    assert list(unlike(states, held_cases(sqlite))) == []
    warehouse = postgres_query(postgres.url(DATABASE), domain)
    assert list(unlike(states, held_cases(warehouse))) == []
    letters = [DeadLetter.from_json(value) for value in await system.values("dead-letters")]
    # Work that a crash has done twice makes two letters of one id.
    causes = {letter.captured_id: letter.cause for letter in letters if letter.domain == domain}
    assert Counter(causes.values()) == Counter(deserved(history))


async def check_sums(system: System) -> None:
    sums = await system.sums()
    assert sums.lost == []
    assert [judged.unjudged for judged in sums.judged.values()] == [[]] * len(sums.judged)
    assert [each.unsettled for each in sums.sinks] == [[]] * len(sums.sinks)
    assert sum(each.passed for each in sums.sinks)


def deserved(history: History) -> Mapping[str, int]:
    return Counter(
        request.cause for request in deliver(history, 0, shuffled=True, broken=8) if request.cause
    )


@pytest.mark.parametrize(
    ("how", "decidable"),
    [("json", True), ("xml", True), ("mixed", True), ("mixed", False), ("json", False)],
)
async def test_any_order_of_arrival_ends_in_the_truth(
    system: System, postgres: PostgresServer, how: Format, decidable: bool
) -> None:
    histories = []
    for _ in range(3):
        seed, domain = new_project()
        history, requests = make(seed, domain, how, decidable=decidable)
        await forward(system, domain, requests)
        histories.append(history)
    await system.caught_up()
    for history in histories:
        await check(system, history, postgres)
    await check_sums(system)


async def test_killed_at_random_moments_nothing_is_missing_and_nothing_older_wins(
    system: System, postgres: PostgresServer
) -> None:
    seed, domain = new_project()
    history, requests = make(seed, domain, "mixed", decidable=True)
    chance = random.Random(seed)  # noqa: S311 - it must be repeatable, not secret
    sending = asyncio.ensure_future(forward(system, domain, requests))
    for role in ("streams", "sink warehouse", "streams", "sink files", "streams"):
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        system.kill(role)
        system.start(role)
        if chance.random() < 0.5:
            await system.ready([role])
    await sending
    await system.ready(system.roles)
    await system.caught_up()
    await check(system, history, postgres)
    await check_sums(system)
