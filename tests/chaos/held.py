"""What targets hold after all that, compared with what they are to hold."""

import asyncio
from base64 import b64decode
from collections import Counter
from collections.abc import Mapping

import orjson

from casewire.progress import behind, committed_offsets, end_offsets
from casewire.settled import count_settled
from casewire.topics import admin
from schemas.case import CaseState
from schemas.dead_letter import DeadLetter
from schemas.values import Json
from streams.records import header
from streams.replays import REPLAYS
from tests.chaos.targets import DOMAIN, SETTLE_SECONDS, TOPIC, Bench, version_of
from tests.contract.rigs import MemoryRig, PostgresRig, Rig as Tables, SqliteRig, State
from tests.end_to_end.system import System
from tests.kafka_tools import read_all
from tests.sinks.http_target import Target
from tests.sinks.test_files import rows_of


async def left(system: System, sink: str) -> int:
    """Return how many records a sink has still to pass."""
    kafka = system.kafka
    read = [kafka.topic(each) for each in (*system.sources[sink], REPLAYS)]
    ends = await end_offsets(kafka, read)
    async with admin(kafka) as client:
        return behind(ends, await committed_offsets(client, kafka.group(f"sink-{sink}")))


async def settled(system: System, *sinks: str) -> None:
    """Return when sinks have passed all that there is."""
    async with asyncio.timeout(SETTLE_SECONDS):
        for sink in sinks:
            while await left(system, sink):  # noqa: ASYNC110 - a broker tells of no commit
                await asyncio.sleep(0.2)


def databases(bench: Bench) -> tuple[SqliteRig, PostgresRig]:
    folder = bench.system.folder / "data" / "sqlite"
    return SqliteRig(folder), PostgresRig(bench.postgres.url())


async def check(bench: Bench) -> None:
    """Assert that each target has what the oracle has, and that each offset has its end."""
    newest = bench.load.newest
    good = {key: state for key, state in newest.items() if "/bad-" not in key}
    sqlite, postgres = databases(bench)
    differences = await unlike(sqlite, newest) + await unlike(postgres, good)
    assert not differences, differences[:3]
    young = {key: state for key, state in newest.items() if state != bench.old.get(key)}
    check_http(bench.http, young)
    await _check_partner(bench)
    files = [path for path in bench.files.rglob("*.*") if not path.name.startswith(REPLAYS)]
    found = [row for path in files for row in rows_of(path)]
    written, sent = Counter(event for _, event in found), Counter(bench.load.events)
    assert written == sent, (written - sent, sent - written)
    letters = [DeadLetter.from_json(value) for value in await bench.system.values("dead-letters")]
    assert {letter.stage for letter in letters} == {"sink:postgres"}
    bad = {header_of(letter, "ce_id").partition("@")[0] for letter in letters}
    assert bad == newest.keys() - good.keys(), bad
    counted = await count_settled(bench.system.kafka, bench.system.sources)
    for each in counted:
        assert (each.unsettled, sum(each.ends.values())) == ([], each.passed), each.source
    assert sum(each.ends.get("excluded by since", 0) for each in counted) == bench.excluded


def check_http(http: Target, newest: Mapping[str, State]) -> None:
    """The last request of each is the newest version; an older one never comes after it."""
    last: dict[str, tuple[int, Mapping[str, Json]]] = {}
    for each in http.received:
        body = orjson.loads(each.body)
        key = f"{DOMAIN}/{body.get('case_id') or body['id']}"
        last[key] = int(each.headers["casewire-version"]), body
    assert last.keys() == newest.keys(), last.keys() ^ newest.keys()
    for key, (version, body) in last.items():
        state = newest[key]
        assert version == version_of(state), key
        inner = "properties" if isinstance(state, CaseState) else "form"
        assert body[inner] == getattr(state, inner), key


async def _check_partner(bench: Bench) -> None:
    records = await read_all(bench.partner.bootstrap_servers, TOPIC)
    last = {(record.key or b"").decode(): record.value for record in records}
    assert {key: orjson.loads(value or b"") for key, value in last.items()} == {
        key: orjson.loads(state.to_json()) for key, state in bench.load.newest.items()
    }


async def check_replay(bench: Bench, key: str) -> None:
    """Lose a case in both databases, replay it into each sink, and assert that each has it again.

    A target that keeps what came got it once more, and can tell that it is a replay.
    """
    subject = key.partition("/")[2]
    for rig in databases(bench):
        table = f"case_{rig.rows(DOMAIN)[subject].case_type}"
        rig.run(DOMAIN, f"DELETE FROM cases WHERE case_id = '{subject}'")  # noqa: S608
        rig.run(DOMAIN, f"DELETE FROM {table} WHERE cw_case_id = '{subject}'")  # noqa: S608
        assert subject not in rig.rows(DOMAIN)
    await bench.replay(key)
    await settled(bench.system, *bench.system.sinks)
    await check(bench)
    assert bench.http.received[-1].headers["casewire-origin"] == "replay"
    records = await read_all(bench.partner.bootstrap_servers, TOPIC)
    origins = [header(each.headers, "casewire-origin") for each in records]
    assert origins.count("replay") == 1
    (replays,) = bench.files.rglob(f"{REPLAYS}-*")
    event_id = f"{key}@{version_of(bench.load.newest[key])}"
    assert [each for _, each in rows_of(replays)] == [event_id]


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
