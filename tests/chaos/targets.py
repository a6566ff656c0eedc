"""Sinks of every type on real targets: a load, what may be killed, and what must have come out."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import orjson
from aiokafka import AIOKafkaProducer

from schemas.case import CaseState
from schemas.form import FormState
from schemas.settings import KafkaSettings
from schemas.times import now
from schemas.values import Json
from streams.replays import REPLAYS, again
from tests.contract.rigs import (
    State,
    case_state,
    form_state,
)
from tests.end_to_end.system import System, create
from tests.kafka_tools import create_topic
from tests.servers import LocalKafka, LocalPostgres, S3Server
from tests.sinks.http_target import Target
from tests.streams.made import Made

DOMAIN: Final = "demo"
TOPIC: Final = "subscriber"
LONG_AGO: Final = "2026-01-01T00:00:00.000000Z"
AT_ONCE: Final = 25
SETTLE_SECONDS: Final = 120

Kill: TypeAlias = Callable[[], None]


@dataclass
class Load:
    """Versions of cases and forms as streams would write them, the newest of each known.

    The cases `bad-…` hold a character that PostgreSQL takes nowhere.
    """

    chance: random.Random
    newest: dict[str, State] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    latest: dict[str, Sequence[Made]] = field(default_factory=dict)

    def state(self) -> State:
        kind = self.chance.choice(["case", "case", "form"])
        subject = f"{kind}-{self.chance.randrange(30)}"
        if self.chance.random() < 0.02:
            subject = f"bad-{self.chance.randrange(5)}"
        held = self.newest.get(f"{DOMAIN}/{subject}")
        version = 1 if held is None else version_of(held) + self.chance.randint(1, 3)
        made = self._form if kind == "form" and "bad" not in subject else self._case
        state = made(subject, version)
        self.newest[f"{DOMAIN}/{subject}"] = state
        return state

    def _case(self, subject: str, version: int) -> CaseState:
        some = {name: self.chance.choice(["", "x", "y"]) for name in ("phone", "bp", "note")}
        kept = {name: value for name, value in some.items() if self.chance.random() < 0.7}
        kept["case_type"] = "patient" if self.chance.random() < 0.9 else "child"
        bad = subject.startswith("bad")
        if bad:
            kept["note"] = "\0"
        deleted = not bad and self.chance.random() < 0.1
        return case_state(DOMAIN, subject, version, properties=kept, deleted=deleted)

    def _form(self, subject: str, version: int) -> FormState:
        visits = [{"drug": self.chance.choice("abc")} for _ in range(self.chance.randrange(4))]
        return form_state(DOMAIN, subject, version, form={"visit": visits} if visits else {})

    def records(self, captured_at: str) -> Sequence[Made]:
        """Return the record of the next state, and that of the event that it came by."""
        state = self.state()
        of = "case" if isinstance(state, CaseState) else "form"
        key = f"{DOMAIN}/{state.case_id if isinstance(state, CaseState) else state.id}"
        event_id = f"{key}@{version_of(state)}"
        self.events.append(event_id)
        headers = [
            ("ce_id", event_id.encode()),
            ("ce_time", captured_at.encode()),
            ("casewire-domain", DOMAIN.encode()),
        ]
        version = ("casewire-version", str(version_of(state)).encode())
        schemas = [("casewire-schema", f"{name}/1".encode()) for name in (f"{of}-state", of)]
        self.latest[key] = [
            Made(state.to_json(), key.encode(), [version, schemas[0], *headers], f"{of}-state"),
            Made(state.to_json(), key.encode(), [schemas[1], *headers], f"{of}s"),
        ]
        return self.latest[key]


def version_of(state: State) -> int:
    return state.version if isinstance(state, CaseState) else state.state_version


@dataclass
class Bench:
    """The workers of all sinks, their targets, and the load."""

    system: System
    postgres: LocalPostgres
    partner: LocalKafka
    http: Target
    files: Path
    s3: S3Server | None
    load: Load
    old: Mapping[str, State] = field(default_factory=dict)
    excluded: int = 0

    @property
    def chance(self) -> random.Random:
        return self.load.chance

    async def send_old(self, count: int) -> None:
        """Send what the sink `http` is to leave out."""
        await self._send([each for _ in range(count) for each in self.load.records(LONG_AGO)])
        self.old, self.excluded = dict(self.load.newest), count

    async def send(self, count: int) -> None:
        """Send so many states with their events, in bursts at random moments."""
        for start in range(0, count, AT_ONCE):
            burst = range(min(AT_ONCE, count - start))
            await self._send([each for _ in burst for each in self.load.records(now())])
            await asyncio.sleep(self.chance.uniform(0, 0.3))

    async def replay(self, key: str) -> None:
        """Send the latest of a case to every sink once more, as `casewire replay` does."""
        state, event = self.load.latest[key]
        of = {name: event if name == "files" else state for name in self.system.sinks}
        out = [again(each, key.encode(), f"sink:{name}") for name, each in of.items()]
        await self._send([Made(each.value, each.key, each.headers, REPLAYS) for each in out])

    async def _send(self, records: Sequence[Made]) -> None:
        await send(self.system.kafka, records)

    def kill_worker(self, role: str) -> None:
        self.system.kill(role)
        self.system.start(role)

    async def kill_postgres(self) -> None:
        await asyncio.to_thread(self.postgres.stop, "immediate")
        await self._pause()
        await asyncio.to_thread(self.postgres.start)

    async def kill_partner(self) -> None:
        self.partner.kill()
        await self._pause()
        await asyncio.to_thread(self.partner.start)

    async def kill_http(self) -> None:
        await self.http.kill()
        await self._pause()
        await self.http.start()

    async def kill_s3(self) -> None:
        if self.s3 is not None:
            self.s3.kill()
            await self._pause()
            await asyncio.to_thread(self.s3.start)

    async def _pause(self) -> None:
        await asyncio.sleep(self.chance.uniform(0, 1.5))

    async def strike(self, rounds: int) -> None:
        """Kill each worker and each target so many times, in any order, at random moments."""
        targets = [self.kill_postgres, self.kill_partner, self.kill_http, self.kill_s3]

        async def workers() -> None:
            for _ in range(rounds):
                roles = list(self.system.processes)
                for role in self.chance.sample(roles, len(roles)):
                    await asyncio.sleep(self.chance.uniform(0, 1))
                    self.kill_worker(role)

        async def servers() -> None:
            for _ in range(rounds):
                for kill in self.chance.sample(targets, len(targets)):
                    await asyncio.sleep(self.chance.uniform(0, 1))
                    await kill()

        await asyncio.gather(workers(), servers())


async def send(kafka: KafkaSettings, records: Sequence[Made]) -> None:
    """Send records to their topics (short names)."""
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all") as producer:
        for each in records:
            headers = list(each.headers)
            await producer.send(kafka.topic(each.topic), each.value, each.key, headers=headers)
        await producer.flush()


@contextlib.asynccontextmanager
async def running_bench(
    folder: Path,
    kafka: KafkaSettings,
    servers: tuple[LocalPostgres, LocalKafka, S3Server | None],
    seed: int,
) -> AsyncIterator[Bench]:
    """Run a worker for each type of sink. The one of `http` is to leave out what is old."""
    postgres, partner, s3 = servers
    http = Target()
    files = folder / "lake" if s3 is None else s3.data_dir / "lake"
    system = System(
        folder,
        kafka,
        {
            "sqlite": {"type": "sql"},
            "postgres": {"type": "sql", "url": postgres.url()},
            "http": {"type": "http", "url": http.url, "since": "2026-06-01T00:00:00Z"},
            "kafka": {
                "type": "kafka",
                "bootstrap_servers": partner.bootstrap_servers,
                "topic": TOPIC,
            },
            "files": {"type": "files", "batch_seconds": 1, **_lake(files, s3)},
        },
        env={
            f"AWS_{way}_CHECKSUM_{what}": "when_required"
            for way, what in (("REQUEST", "CALCULATION"), ("RESPONSE", "VALIDATION"))
        },
    )
    await create_topic(partner.bootstrap_servers, TOPIC, 4)
    await create(system)
    await http.start()
    load = Load(random.Random(seed))  # noqa: S311 - it must be repeatable, not secret
    bench = Bench(system, postgres, partner, http, files, s3, load)
    supervisor = asyncio.ensure_future(system.supervise())
    try:
        yield bench
    finally:
        supervisor.cancel()
        system.stop()
        await http.kill()


def _lake(folder: Path, s3: S3Server | None) -> Mapping[str, Json]:
    if s3 is None:
        return {"url": str(folder)}
    s3.make_bucket(folder.name)
    return {
        "url": f"s3://{folder.name}",
        "options": {"endpoint_override": s3.address, "scheme": "http", "region": "us-east-1"},
        "secrets": orjson.dumps({"access_key": s3.user, "secret_key": s3.secret}).decode(),
    }
