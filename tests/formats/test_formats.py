"""What each release wrote can be read by this one, and what a newer one wrote is left alone."""

import shutil
import sqlite3
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from uuid import uuid4

import orjson
import psycopg
import pytest
from hypothesis import given, strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from casewire.data_dir import open_data_dir
from ingress.spool import Spool
from ingress.spool_format import HEADER, Stored
from ingress.spool_metrics import SpoolMetrics
from schemas.envelope import EventIds
from schemas.errors import QueryError, TargetError, UnavailableError
from schemas.publish import PUBLISHED
from schemas.settings import KafkaSettings
from schemas.topics import MEBIBYTE
from sinks.postgres import PostgresSink
from sinks.sqlite import SqliteSink
from streams.batches.raw import HeaderBlock
from streams.delivery import message_of
from streams.disk import FORMAT, FORMAT_KEY, RocksStores, WorkerDisk
from streams.fold import FORM, CaseFold
from streams.formats import NewerFormError, require_readable
from streams.past.answers import Past
from streams.past.index import Entry, Index
from streams.past.indexes import Indexes, Layout
from streams.past.reads import Partition, RecordReader
from streams.past.story import Judges
from streams.records import header
from streams.settings import StreamsSettings
from streams.shelves import Shelves
from streams.state import case_judge
from streams.stores import VERSION_BYTES, MemoryStores
from tests.formats.written import FOLDER, all_captured, messages, records
from tests.servers import PostgresServer
from tests.streams.made import Made

pytestmark = pytest.mark.anyio

RELEASES = sorted(folder.name for folder in FOLDER.iterdir() if (folder / "topics.jsonl").exists())


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what a release wrote."""
    copy = tmp_path / "release"
    shutil.copytree(FOLDER / request.param, copy)
    return copy


def on_topics(release: Path) -> Sequence[Made]:
    found = []
    for line in (release / "topics.jsonl").read_bytes().splitlines():
        record = orjson.loads(line)
        value = record["value"]
        found.append(
            Made(
                None if value is None else b64decode(value),
                b64decode(record["key"]),
                [(name, b64decode(text)) for name, text in record["headers"]],
                record["topic"],
            )
        )
    return found


def test_the_data_directory_is_opened_and_a_newer_one_is_not(release: Path) -> None:
    open_data_dir(release / "data")
    (release / "data" / "format").write_text("2\n")
    with pytest.raises(UnavailableError, match="holds data of format '2', and this Casewire knows"):
        open_data_dir(release / "data")


async def test_spooled_events_come_out_and_a_newer_spool_is_left_alone(release: Path) -> None:
    directory = release / "data" / "spool"
    spool = Spool(directory, MEBIBYTE, SpoolMetrics(CollectorRegistry()))
    await spool.adopt()
    (folder,) = spool.folders
    (segment,) = folder.segments
    found = [item.event for item in segment.read()[1] if isinstance(item, Stored)]
    assert [(event.id, event.headers, event.body) for event in found] == [
        ((made.key or b"").decode(), made.headers, made.value) for made in all_captured()
    ]
    await spool.close()

    data = segment.path.read_bytes()
    assert data.startswith(HEADER)
    segment.path.write_bytes(HEADER[:-1] + bytes([HEADER[-1] + 1]) + data[len(HEADER) :])
    later = Spool(directory, MEBIBYTE, SpoolMetrics(CollectorRegistry()))
    with capture_logs() as logs:
        await later.adopt()
        await later.adopt()
    assert [log["event"] for log in logs] == ["a spool is left alone"]
    assert "start that one, and let it bring its events to Kafka" in logs[0]["reason"]
    assert (later.folders, segment.path.exists()) == ([], True)


def test_values_of_all_topics_are_read_and_mean_the_same(release: Path) -> None:
    written = on_topics(release)
    for record in written:
        schema = header(record.headers, "casewire-schema") or ""
        require_readable(record)
        if schema in PUBLISHED:
            value = PUBLISHED[schema].from_json(record.value or b"")
            assert orjson.loads(value.to_json()) == orjson.loads(record.value or b"")
        elif schema == "case-fold/1":
            assert CaseFold.from_json(record.value or b"").version > 0
    known = {header(record.headers, "casewire-schema") for record in written}
    assert known >= {"case/1", "case-change/1", "case-state/1", "form-state/1", "dead-letter/1"}


def test_what_is_written_today_is_what_the_release_wrote(release: Path) -> None:
    """Keys and values, and of the headers those that were there; others may have come."""
    before, now = on_topics(release), list(records())
    assert [(each.topic, each.key) for each in now] == [(each.topic, each.key) for each in before]
    for old, new in zip(before, now, strict=True):
        sent = {name for name, _ in old.headers} - {"traceparent"}
        assert [item for item in new.headers if item[0] in sent] == [
            item for item in old.headers if item[0] in sent
        ]


def test_a_state_of_the_release_is_gone_on_from(release: Path) -> None:
    written = on_topics(release)
    state = next(each for each in written if each.topic == "casewire.case-state")
    event = next(
        each for each in written if (each.topic, each.key) == ("casewire.cases", state.key)
    )
    judge = case_judge(writer="w", window_microseconds=10_000_000)
    assert judge(event, state.value).publish is None  # it is what made the state
    later = orjson.loads(event.value or b"") | {
        "server_date_modified": "2026-01-01T00:00:00.000000Z"
    }
    headers = [item for item in event.headers if item[0] != "casewire-captured-id"]
    headers.append(("casewire-captured-id", EventIds().next()[0].encode()))
    judged = judge(Made(orjson.dumps(later), event.key, headers, event.topic), state.value)
    assert judged.outcome == "applied"
    assert judged.publish is not None
    assert judged.publish.value is not None
    before, after = (orjson.loads(value) for value in (state.value or b"", judged.publish.value))
    assert after["version"] > before["version"]


def test_a_newer_form_stops_the_worker_and_what_is_none_of_ours_does_not() -> None:
    newer = Made(b"{}", headers=[("casewire-schema", b"case-state/2")])
    with pytest.raises(NewerFormError, match="case-state/2, and this Casewire knows case-state/1"):
        message_of(newer)
    for schema in (b"case-state/1", b"case-state/x", b"mine/7", b"\xff"):
        require_readable(Made(b"{}", headers=[("casewire-schema", schema)]))
    require_readable(Made(b"{}"))


def raw(record: Made) -> Made:
    """The record as recovery reads it: headers stay bytes."""
    written = [(name.encode(), value) for name, value in record.headers]
    assert all(len(text) < 64 for header in written for text in header)
    body = b"".join(bytes([2 * len(text)]) + text for header in written for text in header)
    return replace(record, headers=HeaderBlock(len(written), body))


@given(st.lists(st.sampled_from([b"case-state/1", b"case-state/2", b"case-fold/2", b"", b"x/3"])))
def test_recovery_stops_before_it_holds_anything_of_a_newer_form(forms: Sequence[bytes]) -> None:
    headers = [("casewire-version", b"7"), ("ce_type", b"casewire-schema")]
    records = [
        raw(Made(b"{}", headers=[*headers, ("casewire-schema", form)] if form else headers))
        for form in forms
    ]
    shelves = Shelves(MemoryStores())
    shelves.assign([0], [0])
    newer = {b"case-state/2", b"case-fold/2"} & set(forms)
    with pytest.raises(NewerFormError) if newer else nullcontext():
        for start in range(0, len(records), 3):
            shelves.apply(0, records[start : start + 3])
            assert not newer & set(forms[start : start + 3])


def test_the_format_of_tables_on_disk_grows_with_the_forms_of_what_is_in_them() -> None:
    states = {form for form in PUBLISHED if form.partition("/")[0].endswith("-state")}
    forms = {"case-state/1", "form-state/1", "location-state/1", "user-state/1", "case-fold/1"}
    assert (FORMAT, states | {FORM}) == (b"1", forms)


async def test_a_past_of_a_newer_form_is_not_misread(tmp_path: Path) -> None:
    class Reader(RecordReader):
        async def read(self, wanted: Iterable[tuple[Partition, int]]) -> list[Made]:
            return [Made(b"{}", headers=[("casewire-schema", b"case/2")])]

    kafka = KafkaSettings(bootstrap_servers="", topic_prefix="casewire.", partitions=1)
    indexes = Indexes(Layout(kafka, tmp_path))
    past = Past(1, Judges.of(StreamsSettings()), indexes, Reader({}), lambda _key: None)
    with pytest.raises(QueryError, match="case/2, and this Casewire knows case/1") as raised:
        await past._events(b"demo/c1", [Entry(0, 0, 0)])
    assert raised.value.status == 503


def test_tables_on_disk_are_built_upon_and_those_of_another_format_made_anew(
    release: Path,
) -> None:
    states = {
        record.key: record.value
        for record in on_topics(release)
        if record.topic == "casewire.case-state"
    }
    folder = release / "data" / "tables" / "casewire-streams"

    def held(stores: RocksStores) -> Mapping[bytes, bytes]:
        store = stores.open(0)
        assert store.mark is not None
        return {key: value[VERSION_BYTES:] for some in store.slices(10) for key, value in some}

    stores = WorkerDisk(folder, MEBIBYTE).stores("case-state")
    assert held(stores) == states
    stores._database()[FORMAT_KEY] = b"2"
    stores.close()

    with capture_logs() as logs:
        again = WorkerDisk(folder, MEBIBYTE).stores("case-state")
        assert again.open(0).mark is None
        again.close()
    assert [log["event"] for log in logs] == ["a table's store is of another format and made anew"]


def test_an_index_is_gone_on_with_and_one_of_another_format_made_anew(release: Path) -> None:
    file = release / "data" / "tables" / "casewire-streams" / "past" / "0.db"
    index = Index(file)
    assert index.positions() == {0: 1}
    index.close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    index = Index(file)
    assert index.positions() == {}
    index.close()


async def test_rows_in_sqlite_are_gone_on_with_and_newer_tables_refused(release: Path) -> None:
    folder = release / "data" / "sqlite"
    sink = SqliteSink(folder)
    await sink.open()
    assert await sink.versions(messages()) == [each.version for each in messages()]
    assert set(await sink.write(messages())) == {"written"}
    await sink.close()
    with sqlite3.connect(folder / "demo.db") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(TargetError, match="has tables of format 2, and this Casewire knows"):
        await sink.write(messages())
    await sink.close()


@pytest.mark.postgres
async def test_rows_in_postgresql_are_gone_on_with_and_newer_tables_refused(
    release: Path, postgres: PostgresServer
) -> None:
    database = f"formats_{uuid4().hex[:8]}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}".encode())
    url = postgres.url(database)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute((release / "postgres.sql").read_bytes())
    sink = PostgresSink(url)
    await sink.open()
    assert await sink.versions(messages()) == [each.version for each in messages()]
    assert set(await sink.write(messages())) == {"written"}
    await sink.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("COMMENT ON TABLE demo.cw_names IS 'Casewire, format 2'")
    with pytest.raises(TargetError, match="has tables of format 2, and this Casewire knows"):
        await sink.write(messages())
    await sink.close()


def test_the_present_release_has_left_what_it_writes() -> None:
    assert metadata.version("casewire") in RELEASES
