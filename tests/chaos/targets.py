"""Sinks of every type on real targets: a load, what may be killed, and what must have come out."""

import asyncio
import contextlib
import random
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from casewire.progress import behind, committed_offsets, end_offsets
from casewire.settled import count_settled
from casewire.topics import admin
from schemas.case import CaseState
from schemas.dead_letter import DeadLetter
from schemas.form import FormState
from schemas.settings import KafkaSettings
from schemas.times import now
from schemas.values import Json
from tests.contract.rigs import (
    MemoryRig,
    PostgresRig,
    Rig as Tables,
    SqliteRig,
    State,
    case_state,
    form_state,
)
from tests.end_to_end.system import System, create
from tests.kafka_tools import read_all
from tests.servers import KafkaServer, PostgresServer, S3Server
from tests.sinks.http_target import Target
from tests.sinks.test_files import rows_of
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

    def state(self) -> State:
        kind = self.chance.choice(["case", "case", "form"])
        subject = f"{kind}-{self.chance.randrange(30)}"
        if self.chance.random() < 0.02:
            subject = f"bad-{self.chance.randrange(5)}"
        held = self.newest.get(f"{DOMAIN}/{subject}")
        version = 1 if held is None else _version(held) + self.chance.randint(1, 3)
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
        event_id = f"{key}@{_version(state)}"
        self.events.append(event_id)
        headers = [
            ("ce_id", event_id.encode()),
            ("ce_time", captured_at.encode()),
            ("casewire-domain", DOMAIN.encode()),
        ]
        version = ("casewire-version", str(_version(state)).encode())
        return [
            Made(state.to_json(), key.encode(), [version, *headers], f"{of}-state"),
            Made(state.to_json(), key.encode(), headers, f"{of}s"),
        ]


def _version(state: State) -> int:
    return state.version if isinstance(state, CaseState) else state.state_version


@dataclass
class Bench:
    """The workers of all sinks, their targets, and the load."""

    system: System
    postgres: PostgresServer
    partner: KafkaServer
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
        await self.send(count, LONG_AGO)
        self.old, self.excluded = dict(self.load.newest), count

    async def send(self, count: int, captured_at: str = "") -> None:
        """Send so many states with their events, in bursts at random moments."""
        async with AIOKafkaProducer(
            bootstrap_servers=self.system.kafka.bootstrap_servers, acks="all"
        ) as producer:
            for start in range(0, count, AT_ONCE):
                for _ in range(min(AT_ONCE, count - start)):
                    for each in self.load.records(captured_at or now()):
                        topic = self.system.kafka.topic(each.topic)
                        await producer.send(topic, each.value, each.key, headers=list(each.headers))
                await producer.flush()
                await asyncio.sleep(0 if captured_at else self.chance.uniform(0, 0.3))

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
                for role in self.chance.sample(self.system.sink_roles, len(self.system.sinks)):
                    await asyncio.sleep(self.chance.uniform(0, 1))
                    self.kill_worker(role)

        async def servers() -> None:
            for _ in range(rounds):
                for kill in self.chance.sample(targets, len(targets)):
                    await asyncio.sleep(self.chance.uniform(0, 1))
                    await kill()

        await asyncio.gather(workers(), servers())

    async def left(self, sink: str) -> int:
        """Return how many records a sink has still to pass."""
        kafka = self.system.kafka
        ends = await end_offsets(kafka, [kafka.topic(each) for each in self.system.sources[sink]])
        async with admin(kafka) as client:
            return behind(ends, await committed_offsets(client, kafka.group(f"sink-{sink}")))

    async def settled(self, *sinks: str) -> None:
        """Return when sinks have passed all that there is."""
        async with asyncio.timeout(SETTLE_SECONDS):
            for sink in sinks:
                while await self.left(sink):  # noqa: ASYNC110 - a broker tells of no commit
                    await asyncio.sleep(0.2)

    async def check(self) -> None:
        """Assert that each target has what the oracle has, and that each offset has its end."""
        newest = self.load.newest
        good = {key: state for key, state in newest.items() if "/bad-" not in key}
        folder = self.system.folder / "data" / "sqlite"
        differences = await unlike(SqliteRig(folder), newest)
        differences += await unlike(PostgresRig(self.postgres.url()), good)
        assert not differences, differences[:3]
        self._check_http(
            {key: state for key, state in newest.items() if state != self.old.get(key)}
        )
        await self._check_partner()
        found = [row for path in sorted(self.files.rglob("*.*")) for row in rows_of(path)]
        written, sent = Counter(event for _, event in found), Counter(self.load.events)
        assert written == sent, (written - sent, sent - written)
        letters = [
            DeadLetter.from_json(value) for value in await self.system.values("dead-letters")
        ]
        assert {letter.stage for letter in letters} == {"sink:postgres"}
        bad = {header_of(letter, "ce_id").partition("@")[0] for letter in letters}
        assert bad == newest.keys() - good.keys(), bad
        counted = await count_settled(self.system.kafka, self.system.sources)
        for each in counted:
            assert (each.unsettled, sum(each.ends.values())) == ([], each.passed), each.source
        assert sum(each.ends.get("excluded by since", 0) for each in counted) == self.excluded

    def _check_http(self, newest: Mapping[str, State]) -> None:
        """The last request of each is the newest version; an older one never comes after it."""
        last: dict[str, tuple[int, Mapping[str, Json]]] = {}
        for each in self.http.received:
            body = orjson.loads(each.body)
            key = f"{DOMAIN}/{body.get('case_id') or body['id']}"
            last[key] = int(each.headers["casewire-version"]), body
        assert last.keys() == newest.keys(), last.keys() ^ newest.keys()
        for key, (version, body) in last.items():
            state = newest[key]
            assert version == _version(state), key
            inner = "properties" if isinstance(state, CaseState) else "form"
            assert body[inner] == getattr(state, inner), key

    async def _check_partner(self) -> None:
        records = await read_all(self.partner.bootstrap_servers, TOPIC)
        last = {(record.key or b"").decode(): record.value for record in records}
        assert {key: orjson.loads(value or b"") for key, value in last.items()} == {
            key: orjson.loads(state.to_json()) for key, state in self.load.newest.items()
        }


def header_of(letter: DeadLetter, name: str) -> str:
    return b64decode(dict(letter.original["headers"])[name]).decode()


def rows(tables: Tables) -> Mapping[str, object]:
    return tables.rows(DOMAIN)


def forms(tables: Tables) -> Mapping[str, object]:
    return tables.forms(DOMAIN)


def guards(tables: Tables) -> Mapping[str, object]:
    """Return version and deleted by case id: what is gone keeps the type that its row had."""
    return {each: held[1:] for each, held in tables.guards(DOMAIN).items()}


async def unlike(tables: Tables, newest: Mapping[str, State]) -> list[str]:
    """Return what differs between tables and a sink in memory that was given the newest only."""
    oracle = MemoryRig()
    await oracle.sink().write(list(newest.values()))
    found = []
    for what in (guards, rows, forms):
        held, wanted = what(tables), what(oracle)
        found += [
            f"{each}: {held.get(each)} instead of {wanted.get(each)}"
            for each in held.keys() | wanted.keys()
            if held.get(each) != wanted.get(each)
        ]
    return found


@contextlib.asynccontextmanager
async def running_bench(
    folder: Path,
    kafka: KafkaSettings,
    servers: tuple[PostgresServer, KafkaServer, S3Server | None],
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
    await make_topic(partner)
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


async def make_topic(partner: KafkaServer) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=partner.bootstrap_servers)
    await client.start()
    try:
        await client.create_topics([NewTopic(TOPIC, 4, 1)])
    finally:
        await client.close()
