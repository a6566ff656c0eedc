"""The Faust worker on a real broker."""

import contextlib
import hashlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import faust
import msgspec
import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given, strategies as st

from casewire.hq import Request
from casewire.simulation.delivery import deliver
from casewire.simulation.history import Format, History, Plan, make_history
from casewire.simulation.model import rebuilt
from casewire.simulation.render import CASE_XMLNS, case_object
from casewire.sums import JUDGED_TOPICS, count_sums
from casewire.truth import TrueCase, Truth, compare
from ingress.records import Event, claim_records
from schemas.case import CaseState
from schemas.dead_letter import DeadLetter
from schemas.delivery import BatchDelivery
from schemas.envelope import EventIds
from schemas.errors import InvalidEventError
from schemas.others import LocationState, UserState
from schemas.partitioner import partition_of
from schemas.settings import KafkaSettings
from schemas.times import from_datetime, from_microseconds
from schemas.topics import MEBIBYTE, TOPICS
from schemas.values import Json
from sinks.sql_settings import SqlSettings
from streams.app import create_sink_app, create_streams_app, stop_app
from streams.batches.assignor import UnknownTopicsError
from streams.batches.table import WrongPartitionError
from streams.decode import decode
from streams.delivery import Delivery
from streams.fence import FencedError
from streams.records import Record, header
from streams.settings import StreamsSettings
from tests.kafka_tools import ConsumerRecord, create_topics, read_all
from tests.servers import KafkaServer
from tests.streams.made import IDS, Made, captured, state_record
from tests.streams.test_compact import T0, snapshot
from tests.streams.test_delivery import ScriptedSink

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

SETTINGS = StreamsSettings(session_timeout_seconds=6)


@pytest.fixture
async def settings(kafka: KafkaServer, prefix: str) -> KafkaSettings:
    await create_topics(kafka.bootstrap_servers, prefix, TOPICS, partitions=4)
    return KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=4
    )


@contextlib.asynccontextmanager
async def running(app: faust.App) -> AsyncIterator[faust.App]:
    try:
        await app.start()
        yield app
    finally:
        await stop_app(app)


@contextlib.asynccontextmanager
async def ending(
    app: faust.App, error: type[Exception], match: str | None = None
) -> AsyncIterator[None]:
    """Run a worker until it has crashed by that error: after what is done meanwhile, or by that."""
    try:
        await app.start()
        yield
        with anyio.fail_after(60):
            await app.wait_until_stopped()
    except BaseException:
        with contextlib.suppress(Exception):
            await stop_app(app)
        raise
    with pytest.raises(error, match=match):
        await stop_app(app)


async def send(settings: KafkaSettings, topic: str, records: Sequence[Made]) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, acks="all", max_request_size=2 * MEBIBYTE
    ) as producer:
        for record in records:
            await producer.send_and_wait(
                settings.topic(topic), record.value, record.key, headers=list(record.headers)
            )


async def read_until(
    settings: KafkaSettings, topic: str, enough: Callable[[list[ConsumerRecord]], bool]
) -> list[ConsumerRecord]:
    with anyio.fail_after(60):
        while True:
            records = await read_all(settings.bootstrap_servers, settings.topic(topic))
            if enough(records):
                return records
            await anyio.sleep(0.1)


def states(records: Sequence[ConsumerRecord]) -> dict[bytes | None, CaseState]:
    return {record.key: CaseState.from_json(record.value or b"") for record in records}


def case_body(case_id: str, seconds: float, forms: str, **properties: str) -> bytes:
    event = snapshot(seconds, forms, case_id=case_id)
    return type(event)(
        **{name: getattr(event, name) for name in event.names() if name != "properties"},
        properties={"case_type": "patient", **properties},
    ).to_json()


@given(st.binary(min_size=1, max_size=80), st.integers(1, 64))
def test_partitions_are_those_of_the_default_partitioner(key: bytes, partitions: int) -> None:
    everything = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, everything, everything)


async def test_captured_events_become_states_and_dead_letters(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    bodies = [case_body(f"c{i % 5}", 60 * i, "abcdefghij"[: i + 1], n=str(i)) for i in range(10)]
    records = [captured(body) for body in [*bodies[5:], *bodies[:5], bodies[9], b"<broken"]]
    await send(settings, "captured", records)
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        letters = await read_until(settings, "dead-letters", lambda found: len(found) == 1)
        tallies = await read_until(settings, "deliveries", lambda found: judged(found) == 11)
    found = states(await read_all(settings.bootstrap_servers, settings.topic("case-state")))
    assert {key: state.properties["n"] for key, state in found.items()} == {
        f"demo/c{i % 5}".encode(): str(i) for i in range(5, 10)
    }
    assert DeadLetter.from_json(letters[0].value or b"").cause == "malformed_xml"
    counts = sum_of(tallies)
    assert counts["applied"] >= 5
    assert counts["duplicate"] + counts["stale"] == 11 - counts["applied"]
    for record in await read_all(settings.bootstrap_servers, settings.topic("case-state")):
        assert record.partition == partition_of(record.key or b"", 4)


def batches(records: Sequence[ConsumerRecord]) -> list[BatchDelivery]:
    schema = ("casewire-schema", b"batch-delivery/1")
    return [BatchDelivery.from_json(r.value or b"") for r in records if schema in r.headers]


def sum_of(records: Sequence[ConsumerRecord]) -> dict[str, int]:
    total: dict[str, int] = {}
    for batch in batches(records):
        for outcome, count in batch.counts.items():
            total[outcome] = total.get(outcome, 0) + count
    return total


def judged(records: Sequence[ConsumerRecord]) -> int:
    return sum(sum_of(records).values())


def claimed(body: bytes) -> list[tuple[str, Made]]:
    """Return the records of a body in pieces, with their topics, as the ingress sends them."""
    whole = captured(body)
    event = Event((whole.key or b"").decode(), whole.headers, body)
    records = claim_records(event, hashlib.sha256(body).hexdigest())
    return [(r.topic, Made(r.value, r.key, r.headers)) for r in records]


async def test_a_body_in_pieces_is_put_together_again(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    padded = case_body("large", 0, "a", n="1") + b" " * (9 * MEBIBYTE)
    lost = claimed(case_body("lost", 0, "a") + b" " * (9 * MEBIBYTE))[1:]
    for topic, record in [*claimed(padded), *lost]:
        await send(settings, topic, [record])
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        found = await read_until(settings, "case-state", lambda found: len(found) == 1)
        letters = await read_until(settings, "dead-letters", lambda found: len(found) == 1)
    assert states(found)[b"demo/large"].properties["n"] == "1"
    letter = DeadLetter.from_json(letters[0].value or b"")
    assert (letter.cause, letter.original["value"]) == ("too_large", None)


async def test_a_restarted_worker_goes_on_where_the_last_stopped(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    await send(settings, "captured", [captured(case_body("c1", 600, "ab", n="new"))])
    async with running(create_streams_app(settings, SETTINGS, tmp_path / "1")):
        await read_until(settings, "case-state", lambda found: len(found) == 1)
        await read_until(settings, "deliveries", lambda found: judged(found) == 1)
    await send(settings, "captured", [captured(case_body("c1", 0, "a", n="old"))])
    async with running(create_streams_app(settings, SETTINGS, tmp_path / "2")):
        tallies = await read_until(settings, "deliveries", lambda found: judged(found) == 2)
    assert sum_of(tallies) == {"applied": 1, "stale": 1}
    found = states(await read_all(settings.bootstrap_servers, settings.topic("case-state")))
    assert found[b"demo/c1"].properties["n"] == "new"


async def test_states_do_not_depend_on_the_size_of_batches(
    kafka: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    """The same requests, waiting in Kafka as large batches and then coming one by one."""
    plan = Plan(domain="demo", cases=8, changes=40, format="mixed")
    history = make_history(4711, datetime.now(UTC), plan)
    records = [of_request(request) for request in deliver(history, 4711, shuffled=True)]
    ends = []
    for way in ("waiting", "one by one"):
        settings = KafkaSettings(
            bootstrap_servers=kafka.bootstrap_servers,
            topic_prefix=f"{prefix}{way.replace(' ', '-')}.",
            partitions=1,
        )
        await create_topics(settings.bootstrap_servers, settings.topic_prefix, TOPICS, 1)
        if way == "waiting":
            await send(settings, "captured", records)
        async with running(create_streams_app(settings, SETTINGS, tmp_path / way)):
            if way == "one by one":
                await send(settings, "captured", records)
            await read_until(settings, "deliveries", lambda found: judged(found) == events(records))
        found = states(await read_all(settings.bootstrap_servers, settings.topic("case-state")))
        ends.append({key: compared(state) for key, state in found.items()})
    assert ends[0] == ends[1]
    assert compare(history.truth, [state.to_json() for state in ends[0].values()]) == []


def compared(state: CaseState) -> CaseState:
    """Return what of a state does not depend on whether a form or a snapshot was read first.

    A case that is gone keeps its type if anything read before said it.
    """
    properties = {} if state.deleted else state.properties
    return msgspec.structs.replace(state, version=0, doubtful=False, properties=properties)


def of_request(request: Request, ids: EventIds = IDS) -> Made:
    headers = [("content-type", request.content_type), *request.headers]
    encoded = [(name, value.encode()) for name, value in headers]
    return captured(request.body, label=request.label, headers=encoded, ids=ids)


def events(records: Sequence[Made]) -> int:
    """Return how many events that are judged the captured records make."""
    count = 0
    for record in records:
        with contextlib.suppress(InvalidEventError):
            decoded = decode(record)
            count += len(decoded.changes) + (decoded.topic in JUDGED_TOPICS)
    return count


def foreign(record: ConsumerRecord, change: int) -> Made:
    """Return a state as a worker writes it that is not the owner: `change` is its version's."""
    state = CaseState.from_json(record.value or b"")
    other = msgspec.structs.replace(
        state, version=state.version + change, properties={"n": "foreign"}
    )
    kept = [
        item for item in record.headers if item[0] not in ("casewire-version", "casewire-writer")
    ]
    return Made(
        other.to_json(),
        record.key,
        [*kept, ("casewire-writer", b"frozen"), ("casewire-version", str(other.version).encode())],
    )


@pytest.mark.parametrize("busy", [True, False])
async def test_what_a_frozen_worker_writes_when_it_wakes_does_not_stay(
    settings: KafkaSettings, tmp_path: Path, busy: bool
) -> None:
    await send(settings, "captured", [captured(case_body("c1", 60, "ab", n="mine"))])
    async with running(create_streams_app(settings, SETTINGS, tmp_path / "1")):
        first = await read_until(settings, "case-state", lambda found: len(found) == 1)
        await send(settings, "case-state", [foreign(first[0], -1)])
        if busy:
            await send(settings, "captured", [captured(case_body("c2", 0, "a", n="other"))])
        expected = 3 + busy
        after = await read_until(settings, "case-state", lambda found: len(found) == expected)
    assert states(after)[b"demo/c1"].properties["n"] == "mine"
    last = [record for record in after if record.key == b"demo/c1"][-1]
    before = {name: value for name, value in first[0].headers if name != "ce_time"}
    again = {name: value for name, value in last.headers if name != "ce_time"}
    assert last.value == first[0].value
    assert again.items() <= before.items()
    # A worker that starts later ignores the older one wherever it lies.
    await send(settings, "case-state", [foreign(first[0], -1)])
    await send(settings, "captured", [captured(case_body("c1", 60, "ab", n="mine"))])
    async with running(create_streams_app(settings, SETTINGS, tmp_path / "2")):
        tallies = await read_until(settings, "deliveries", lambda found: judged(found) == 2 + busy)
    assert sum_of(tallies)["duplicate"] == 1


async def test_a_worker_that_finds_a_newer_owner_ends(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    await send(settings, "captured", [captured(case_body("c1", 60, "ab", n="mine"))])
    app = create_streams_app(settings, SETTINGS, tmp_path)
    async with ending(app, FencedError):
        first = await read_until(settings, "case-state", lambda found: len(found) == 1)
        await send(settings, "case-state", [foreign(first[0], 1)])


@pytest.mark.parametrize(("how", "shuffled"), [("json", True), ("xml", False)])
async def test_where_only_forms_are_forwarded_their_states_are_the_truth(
    settings: KafkaSettings, tmp_path: Path, how: Format, shuffled: bool
) -> None:
    """The truth is the simulation's own reading of the forms, as edited, in order of receipt."""
    plan = Plan(domain="demo", cases=12, changes=80, format=how)
    history = make_history(4712, datetime.now(UTC), plan)
    requests = deliver(history, 4712, shuffled=shuffled, duplicates=0.3 * shuffled, late=0)
    records = [of_request(each) for each in requests if each.kind.startswith("form_")]
    await send(settings, "captured", records)
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        await read_until(settings, "deliveries", lambda found: judged(found) >= events(records))
    found = states(await read_all(settings.bootstrap_servers, settings.topic("case-state")))
    assert compare(truth_of_forms(history), [state.to_json() for state in found.values()]) == []
    assert {state.source for state in found.values()} == {"forms"}
    sums = await count_sums(settings)
    assert sums.match
    assert sums.judged["case-changes"].events == sum(len(decode(each).changes) for each in records)


def truth_of_forms(history: History) -> Truth:
    """Return what forms alone say, archived ones too: HQ announces no archiving of a form."""
    forms = sorted(history.forms, key=lambda form: (form.received_on, form.id))
    cases = {}
    for case_id in {case_id for form in forms for case_id in form.case_ids}:
        touched = [form for form in forms if case_id in form.case_ids]
        case = rebuilt(case_id, touched, touched[-1].received_on)
        opened = from_datetime(case.date_opened or touched[0].received_on)
        state = case_object(case, history.truth.domain)
        state["properties"]["date_opened"] = opened
        cases[case_id] = TrueCase(comparable="json", deleted=False, state=state)
    return replace(history.truth, cases=cases)


async def test_snapshots_and_forms_of_a_case_meet_in_one_state(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    first = captured(form_body("f1", 0, {"create": {"case_type": "patient"}}))
    newer = captured(form_body("f2", 60, {"update": {"n": "2"}}))
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        for sent, source, doubtful in (
            (first, "forms", False),
            (captured(case_body("c1", -5, "")), "snapshot", True),
            (captured(case_body("c1", 0, "a", n="1")), "snapshot", False),
            (newer, "snapshot", True),
            (captured(case_body("c1", 60, "ab", n="2")), "snapshot", False),
        ):
            await send(settings, "captured", [sent])
            await read_until(settings, "case-state", partial(shows, source, doubtful))
    found = await read_all(settings.bootstrap_servers, settings.topic("case-state"))
    versions = [state.version for state in in_order(found)]
    assert versions == sorted(set(versions))
    folds = await read_all(settings.bootstrap_servers, settings.topic("case-folds"))
    assert {record.key for record in folds} == {b"demo/c1"}
    blocks = await read_all(settings.bootstrap_servers, settings.topic("case-changes"))
    assert [record.key for record in blocks] == [b"demo/c1", b"demo/c1"]


def in_order(records: Sequence[ConsumerRecord]) -> list[CaseState]:
    return [CaseState.from_json(record.value or b"") for record in records]


def shows(source: str, doubtful: bool, records: list[ConsumerRecord]) -> bool:
    last = in_order(records)[-1:]
    return [(state.source, state.doubtful) for state in last] == [(source, doubtful)]


def form_body(form_id: str, seconds: float, block: dict[str, Json], case_id: str = "c1") -> bytes:
    received_on = from_microseconds(T0 + int(seconds * 1_000_000))
    case = {"@case_id": case_id, "@xmlns": CASE_XMLNS, **block}
    form = {"#type": "data", "case": case}
    return orjson.dumps({"id": form_id, "form": form, "received_on": received_on})


async def test_users_and_locations_have_a_latest_state(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    user = {"id": "u1", "user_data": {}, "email": ""}
    location = {"location_id": "l1", "site_code": "x", "version": 9}
    bodies = [
        {**user, "username": "old"},
        {**user, "username": "new"},
        {**user, "username": "new"},
        {**location, "name": "old"},
        {**location, "name": "new"},
    ]
    await send(settings, "captured", [captured(orjson.dumps(body)) for body in bodies])
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        await read_until(settings, "deliveries", lambda found: judged(found) == 5)
    users = await read_all(settings.bootstrap_servers, settings.topic("user-state"))
    locations = await read_all(settings.bootstrap_servers, settings.topic("location-state"))
    held_user = UserState.from_json(users[-1].value or b"")
    held_location = LocationState.from_json(locations[-1].value or b"")
    assert (users[-1].key, held_user.username) == (b"demo/u1", "new")
    assert (locations[-1].key, held_location.name) == (b"demo/l1", "new")
    assert held_location.extra["version_sent"] == 9
    assert ("casewire-version", str(held_user.version).encode()) in users[-1].headers


async def test_a_key_on_another_partition_than_its_own_stops_the_worker(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    key = b"demo/c1"
    wrong = (partition_of(key, 4) + 1) % 4
    made = captured(case_body("c1", 0, "a"))
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
        await producer.send_and_wait(
            settings.topic("cases"), made.value, key, partition=wrong, headers=list(made.headers)
        )
    app = create_streams_app(settings, SETTINGS, tmp_path)
    with anyio.fail_after(60), pytest.raises(WrongPartitionError):
        async with running(app):
            await app.wait_until_stopped()
    assert not await read_all(settings.bootstrap_servers, settings.topic("case-state"))


async def test_what_crashed_a_worker_is_told_though_it_cannot_stop_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_streams_app(KafkaSettings(bootstrap_servers="127.0.0.1:9"), SETTINGS, tmp_path)

    async def stop() -> None:
        raise RuntimeError("the disk is still full")

    monkeypatch.setattr(app, "stop", stop)
    await app.crash(FencedError("another worker owns it"))
    with pytest.raises(FencedError, match="another worker owns it"):
        await stop_app(app)


async def test_a_worker_that_cannot_stop_in_order_leaves_no_thread_behind(
    settings: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its event loop could not be closed: the process, or a run of the tests, would hang."""
    app = create_streams_app(settings, SETTINGS, tmp_path)
    before = set(threading.enumerate())
    await app.start()
    assert set(threading.enumerate()) - before  # Kafka's client has one of its own

    async def on_stop() -> None:
        raise RuntimeError("this fails before any part is stopped")

    monkeypatch.setattr(app, "on_stop", on_stop)
    with pytest.raises(RuntimeError, match="before any part"):
        await stop_app(app)
    for thread in set(threading.enumerate()) - before:
        await anyio.to_thread.run_sync(partial(thread.join, timeout=10))
        assert not thread.is_alive()


async def test_a_topic_that_the_broker_does_not_know_is_never_left_out(
    kafka: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    """A broker that has just started may not know all of its topics."""
    known = TOPICS.keys() - {"case-folds"}
    await create_topics(kafka.bootstrap_servers, prefix, known, partitions=2)
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=2
    )
    app = create_streams_app(settings, SETTINGS, tmp_path)
    with anyio.fail_after(60), pytest.raises(UnknownTopicsError, match="case-folds"):
        async with running(app):
            await app.wait_until_stopped()


def sink_app(sink: ScriptedSink, settings: KafkaSettings, data_dir: Path) -> faust.App:
    return create_sink_app(Delivery("test", sink), SqlSettings(), settings, SETTINGS, data_dir)


async def test_states_reach_a_sink_and_refusals_become_dead_letters(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    sink = ScriptedSink()
    records = [state_record(f"c{i}", 1) for i in range(20)]
    await send(settings, "case-state", [*records, Made(b"{", key=b"demo/broken")])
    async with running(sink_app(sink, settings, tmp_path)):
        letters = await read_until(settings, "dead-letters", lambda found: len(found) == 1)
        with anyio.fail_after(30):
            while True:
                if len(sink.rows) == 20:
                    break
                await anyio.sleep(0.05)
        ledger = await read_until(settings, "deliveries", lambda found: ended(found) == 21)
    assert DeadLetter.from_json(letters[0].value or b"").stage == "sink:test"
    ends = Counter[str]()
    for record in ledger:
        if header(record.headers, "casewire-schema") == "batch-delivery/1":
            ends += Counter(BatchDelivery.from_json(record.value or b"").counts)
    assert ends == {"written": 20, "dead": 1}


def ended(records: Sequence[Record]) -> int:
    """Return how many events the records of batches tell of."""
    batches = [
        BatchDelivery.from_json(record.value or b"")
        for record in records
        if header(record.headers, "casewire-schema") == "batch-delivery/1"
    ]
    return sum(sum(batch.counts.values()) for batch in batches)
