"""A target of each type of sink, and what somebody who reads it takes for the latest of each."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import orjson
import pyarrow.dataset as ds
from aiohttp import web

from schemas.case import CaseState
from schemas.values import Json
from sinks.base import Sink
from sinks.files_settings import FilesSettings
from sinks.files_sink import make
from sinks.http_settings import HttpSettings
from sinks.http_sink import HttpSink
from sinks.kafka_settings import KafkaSinkSettings
from sinks.kafka_sink import KafkaSink
from streams.records import header
from tests.contract.rigs import PostgresRig, SqliteRig, State, case_state, form_state
from tests.kafka_tools import create_topic, read_all
from tests.servers import KafkaServer
from tests.sinks.http_target import Received, Target, ok
from tests.streams.made import Made

TOO_LONG = "x" * 2_000_000


class Shelf(Protocol):
    """A target. `every`: its sink is given events, not states."""

    every: bool

    def sink(self) -> Sink: ...

    def bad(self, domain: str) -> State:
        """Return what this target never takes."""

    async def cases(self, domain: str) -> Mapping[str, Mapping[str, Json]]:
        """Return the properties of the cases that live, by id."""

    async def visits(self, domain: str, form_id: str) -> Sequence[Json]:
        """Return the rows of the repeat `visit` of a form."""


class SqlShelf:
    every = False

    def __init__(self, rig: SqliteRig | PostgresRig) -> None:
        self._rig = rig

    def sink(self) -> Sink:
        return self._rig.sink().sink

    def bad(self, domain: str) -> State:
        return case_state("../up", "bad")

    async def cases(self, domain: str) -> Mapping[str, Mapping[str, Json]]:
        return {case_id: row.properties for case_id, row in self._rig.rows(domain).items()}

    async def visits(self, domain: str, form_id: str) -> Sequence[Json]:
        rows = self._rig.forms(domain)[form_id].repeats.get("visit", {})
        return [rows[place] for place in sorted(rows, key=lambda place: place.ordinal)]


class HttpShelf:
    every = False

    def __init__(self, target: Target) -> None:
        self._target = target
        target.answer = self._answer

    def sink(self) -> Sink:
        return HttpSink(HttpSettings(url=self._target.url))

    def bad(self, domain: str) -> State:
        return case_state(domain, "bad")

    async def cases(self, domain: str) -> Mapping[str, Mapping[str, Json]]:
        return living(self._latest().values())

    async def visits(self, domain: str, form_id: str) -> Sequence[Json]:
        return repeats(self._latest()[form_id])

    async def _answer(self, received: Received) -> web.StreamResponse:
        return web.Response(status=422) if b'"bad"' in received.body else await ok(received)

    def _latest(self) -> Mapping[str, Mapping[str, Json]]:
        taken = [each for each in self._target.received if each.event in self._target.taken]
        return latest(
            orjson.loads(each.body)
            | {
                "version": int(each.headers["casewire-version"]),
                "deleted": each.headers.get("casewire-deleted") == "true",
            }
            for each in taken
        )


class KafkaShelf:
    every = False

    def __init__(self, server: KafkaServer, topic: str) -> None:
        self._server = server
        self._topic = topic

    def sink(self) -> Sink:
        servers = self._server.bootstrap_servers
        return KafkaSink(KafkaSinkSettings(bootstrap_servers=servers, topic=self._topic))

    def bad(self, domain: str) -> State:
        return case_state(domain, "bad", properties={"note": TOO_LONG})

    async def cases(self, domain: str) -> Mapping[str, Mapping[str, Json]]:
        return living((await self._latest()).values())

    async def visits(self, domain: str, form_id: str) -> Sequence[Json]:
        return repeats((await self._latest())[form_id])

    async def _latest(self) -> Mapping[str, Mapping[str, Json]]:
        records = await read_all(self._server.bootstrap_servers, self._topic)
        return latest(
            orjson.loads(each.value or b"")
            | {"version": int(header(each.headers, "casewire-version") or 0)}
            for each in records
        )


class FilesShelf:
    every = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def sink(self) -> Sink:
        return make(FilesSettings(url=str(self._folder)), self._folder)

    def bad(self, domain: str) -> State:
        return case_state("../up", "bad")

    async def cases(self, domain: str) -> Mapping[str, Mapping[str, Json]]:
        return living(self._latest("case", "case_id", "server_date_modified").values())

    async def visits(self, domain: str, form_id: str) -> Sequence[Json]:
        return repeats(self._latest("form", "form_id", "received_on")[form_id])

    def _latest(self, kind: str, key: str, time: str) -> Mapping[str, Mapping[str, Json]]:
        rows = ds.dataset(self._folder, partitioning="hive").to_table().to_pylist()
        assert len({row["event_id"] for row in rows}) == len(rows)
        found = [row for row in rows if row["kind"] == kind]
        texts = ("properties", "form")
        return latest(
            row
            | {name: orjson.loads(row[name]) for name in texts if row.get(name)}
            | {"id": row[key], "version": row[time], "deleted": row.get("gone")}
            for row in found
        )


def latest(values: Iterable[Mapping[str, Json]]) -> Mapping[str, Mapping[str, Json]]:
    """Return of each the one with the greatest version, as the documentation tells readers to."""
    found: dict[str, Mapping[str, Json]] = {}
    for value in values:
        about = value.get("case_id") or value["id"]
        if about not in found or value["version"] >= found[about]["version"]:
            found[about] = value
    return found


def living(values: Iterable[Mapping[str, Json]]) -> Mapping[str, Mapping[str, Json]]:
    return {
        value["case_id"]: value["properties"]
        for value in values
        if value.get("case_id") and not value["deleted"]
    }


def repeats(value: Mapping[str, Json]) -> Sequence[Json]:
    visits: Sequence[Json] = value["form"].get("visit", [])
    return visits


@asynccontextmanager
async def http_shelf() -> AsyncIterator[Shelf]:
    target = Target()
    await target.start()
    try:
        yield HttpShelf(target)
    finally:
        await target.kill()


async def kafka_shelf(server: KafkaServer, topic: str) -> Shelf:
    await create_topic(server.bootstrap_servers, topic, 2)
    return KafkaShelf(server, topic)


@dataclass(frozen=True, slots=True)
class Writer:
    """Says how cases and forms come to a sink: as streams writes them."""

    domain: str
    every: bool

    def case(self, case_id: str, version: int, **given: Json) -> CaseState:
        time = f"2026-11-22T10:00:{version:02}.000000Z"
        more = {"deleted": True, "xform_ids": []} if given.pop("gone", False) else {}
        return case_state(
            self.domain, case_id, version, server_date_modified=time, properties=given, **more
        )

    def form(self, form_id: str, version: int, drugs: str) -> State:
        time = f"2026-11-22T10:00:{version:02}.000000Z"
        visits = {"visit": [{"drug": drug} for drug in drugs]} if drugs else {}
        return form_state(self.domain, form_id, version, received_on=time, form=visits)

    def records(self, *states: State, start: int = 0) -> Sequence[Made]:
        return [self._record(state, offset) for offset, state in enumerate(states, start)]

    def _record(self, state: State, offset: int) -> Made:
        kind = "case" if isinstance(state, CaseState) else "form"
        about, version = (
            (state.case_id, state.version)
            if isinstance(state, CaseState)
            else (state.id, state.state_version)
        )
        headers = [("ce_id", f"{about}@{version}".encode())]
        if not self.every:
            headers.append(("casewire-version", str(version).encode()))
        topic = f"casewire.{kind}s" if self.every else f"casewire.{kind}-state"
        key = f"{state.domain}/{about}".encode()
        return Made(
            state.to_json(), key, headers, topic, offset=offset, timestamp=1_790_000_000_000
        )
