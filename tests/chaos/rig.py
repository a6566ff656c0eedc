"""All roles as processes on real brokers, faults by name, a load, and the check after each."""

import asyncio
import contextlib
import random
import signal
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

import anyio

from casewire.forwarder import Options, Report, forward_all
from casewire.hq import Request
from casewire.simulation.delivery import deliver
from casewire.simulation.history import History, Plan, make_history
from casewire.truth import compare
from schemas.case import CaseState
from schemas.dead_letter import DeadLetter
from schemas.settings import KafkaSettings
from streams.records import Record, header
from tests.end_to_end.system import System, running_system
from tests.end_to_end.tables import held_cases, sqlite_query, unlike
from tests.servers import LocalKafka

#: Longer than a worker's session (6 s), so that its partitions have another owner when it wakes.
FROZEN_SECONDS = 8
BROKER_FROZEN_SECONDS = 5
REPAIR_SECONDS = 15
AT_WORK = 0.7
#: HQ's schedule: an hour as a second.
HQ = Options(scale=1 / 3600)


@dataclass(frozen=True, slots=True)
class Rig:
    """`chance` decides what a fault strikes, and when; the tests seed it."""

    system: System
    brokers: Sequence[LocalKafka]
    chance: random.Random = field(default_factory=random.Random)

    def some_worker(self) -> str:
        workers = [role for role in self.system.processes if role.startswith("streams")]
        return self.chance.choice(workers)

    async def kill_worker(self) -> None:
        """Kill a worker at work, or one that is just starting."""
        role = self.some_worker()
        if self.chance.random() < AT_WORK:
            await self.system.ready([role], supervised=True)
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
        process = self.system.processes[self.some_worker()]
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(FROZEN_SECONDS)
        process.send_signal(signal.SIGCONT)

    async def kill_broker(self) -> None:
        broker = self.chance.choice(self.brokers)
        broker.kill()
        await asyncio.to_thread(broker.start)

    async def freeze_broker(self) -> None:
        broker = self.chance.choice(self.brokers)
        assert broker.process is not None
        broker.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(BROKER_FROZEN_SECONDS)
        broker.process.send_signal(signal.SIGCONT)

    async def kill_sink(self) -> None:
        self.system.kill("sink files")
        self.system.start("sink files")


Fault: TypeAlias = Callable[[Rig], Awaitable[None]]

FAULTS: Final[Sequence[Fault]] = (
    Rig.kill_worker,
    Rig.freeze_worker,
    Rig.worker_joins_and_leaves,
    Rig.kill_broker,
    Rig.freeze_broker,
    Rig.kill_sink,
)


@contextlib.asynccontextmanager
async def running_rig(
    folder: Path,
    brokers: Sequence[LocalKafka],
    *,
    replication: int = 1,
    env: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Rig]:
    """Run two streams workers, an ingress and a sink on the brokers, and start anew what ends."""
    settings = KafkaSettings(
        bootstrap_servers=",".join(broker.bootstrap_servers for broker in brokers),
        topic_prefix="casewire.",
        partitions=4,
        replication=replication,
    )
    sinks = {"files": {"type": "sql"}}
    async with running_system(System(folder, settings, sinks, env=env)) as system:
        system.start("streams#2")
        rig = Rig(system, brokers)
        supervisor = asyncio.ensure_future(system.supervise())
        try:
            yield rig
        finally:
            supervisor.cancel()


@dataclass(frozen=True, slots=True)
class Load:
    """A made-up project of its own, as HQ forwards it: each request at least once, some broken."""

    history: History
    requests: Sequence[Request]

    @property
    def domain(self) -> str:
        return self.history.truth.domain


def load(seed: int, changes: int) -> Load:
    """Return the load of a seed. More than every hundredth request is broken."""
    plan = Plan(domain=f"seed-{seed}", cases=changes // 8, changes=changes, format="mixed")
    history = make_history(seed, datetime.now(UTC), plan)
    broken = max(8, changes // 20)
    return Load(history, deliver(history, seed, duplicates=0.2, shuffled=True, broken=broken))


def sending(rig: Rig, sent: Load, part: slice = slice(None)) -> asyncio.Task[Report]:
    to, requests = rig.system.address(sent.domain), sent.requests[part]
    return asyncio.create_task(forward_all(requests, to, workers=8, options=HQ))


async def settle(rig: Rig, sent: Load, work: Sequence[asyncio.Task[Report]]) -> None:
    """Return when all was taken, has gone through streams and into the sink, and is right."""
    results = [result for report in await asyncio.gather(*work) for result in report.results]
    assert Counter(result.outcome for result in results) == {"success": len(sent.requests)}
    await rig.system.ready(list(rig.system.processes), supervised=True)
    await rig.system.caught_up()
    await written_over(rig.system, sent)
    await rig.system.caught_up()
    await check(rig.system, sent)


async def written_over(system: System, sent: Load) -> None:
    """Return when the owners have written over what frozen workers wrote, or leave it to `check`.

    They look every two seconds, and a worker that has just started when it has recovered.
    """
    with anyio.move_on_after(REPAIR_SECONDS):
        while True:
            if not buried_states(await system.records("case-state"), sent.domain):
                return
            await asyncio.sleep(0.5)


async def run(rig: Rig, seed: int, faults: Sequence[Fault], changes: int) -> None:
    """Send a project in as many parts as there are faults, each into one; check what came out."""
    rig.chance.seed(seed)
    sent = load(seed, changes)
    work = []
    try:
        for number, fault in enumerate(faults):
            work.append(sending(rig, sent, slice(number, None, len(faults))))
            await asyncio.sleep(rig.chance.uniform(0, 1))
            await fault(rig)
        await settle(rig, sent, work)
    finally:
        for each in work:
            each.cancel()


async def check(system: System, sent: Load) -> None:
    """Assert that states and tables are the truth, and that everything is accounted for."""
    records = await system.records("case-state")
    assert buried_states(records, sent.domain) == []
    held = states_of(records, sent.domain)
    assert compare(sent.history.truth, [state.to_json() for state in held.values()]) == []
    rows = sqlite_query(system.folder / "data" / "sqlite" / f"{sent.domain}.db")
    assert list(unlike(held, held_cases(rows))) == []
    assert await buried(system, sent.domain) == {
        (request.cause, request.body) for request in sent.requests if request.cause
    }
    sums = await system.sums()
    assert sums.lost == []
    assert all(judged.unjudged == [] for judged in sums.judged.values())


def states_of(records: Sequence[Record], domain: str) -> Mapping[str, CaseState]:
    """Return the last state of each case, of one that has become null the state before that."""
    held: dict[str, CaseState] = {}
    for record in records:
        project, _, case_id = (record.key or b"").decode().partition("/")
        if project != domain:
            continue
        if record.value is not None:
            held[case_id] = CaseState.from_json(record.value)
        else:
            assert held[case_id].deleted, "a case that lives has become null"
    return held


def buried_states(records: Sequence[Record], domain: str) -> Sequence[bytes]:
    """Return the keys of the cases over whose newest version an older one lies."""
    versions: dict[bytes, list[int]] = defaultdict(list)
    for record in records:
        versions[record.key or b""].append(int(header(record.headers, "casewire-version") or 0))
    of_domain = f"{domain}/".encode()
    return [
        key for key, each in versions.items() if key.startswith(of_domain) and each[-1] < max(each)
    ]


async def buried(system: System, domain: str) -> set[tuple[str, bytes]]:
    """Return cause and body of a domain's dead letters; what a crash did twice counts once."""
    letters = [DeadLetter.from_json(value) for value in await system.values("dead-letters")]
    return {
        (letter.cause, b64decode(letter.original["value"] or ""))
        for letter in letters
        if letter.domain == domain
    }
