"""The ledger tells of each offset that a sink has passed how it ended, once."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import pytest
from aiokafka import AIOKafkaConsumer
from hypothesis import given, strategies as st
from prometheus_client import REGISTRY

from casewire.doctor.roles import unsettled_problem
from casewire.ledger import Batch, Covered, Ends, Source, Told, read_ledger
from casewire.progress import committed_offsets
from casewire.settled import COMPACTED, FOR_OTHERS, WRITTEN, Settled, count_settled, settled
from casewire.sums import count_sums
from casewire.topics import admin
from schemas.partitioner import partition_of
from schemas.settings import KafkaSettings
from sinks.match import Choice
from sinks.sql_settings import SqlSettings
from streams.app import create_sink_app
from streams.delivery import Delivery
from tests.end_to_end.system import System, create
from tests.kafka_tools import ConsumerRecord
from tests.servers import KafkaServer
from tests.streams.made import Made, state_record
from tests.streams.test_delivery import ScriptedSink, refuse
from tests.streams.test_replays import replay, state_with_schema
from tests.streams.test_worker import (
    SETTINGS,
    batches,
    read_until,
    running,
    send,
    settings as settings,  # noqa: PLC0414 - a fixture
    sink_app,
)

pytestmark = pytest.mark.anyio

SOURCE = Source("sink:test", "casewire.case-state", 0)


def test_an_end_of_its_own_comes_before_that_of_its_batch() -> None:
    ends = Ends([Batch(0, 5, 1), Batch(4, 8, 2)], {1: Told("stale", 1), 3: Told("dead", 1)})
    counted = settled(SOURCE, range(10), [0, 1, 5, 9], 1, ends)
    assert counted.ends == {WRITTEN: 2, "stale": 1, "dead": 1, FOR_OTHERS: 1, COMPACTED: 4}
    assert counted.unsettled == [9]


spans = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=8)


@given(spans, st.sets(st.integers(0, 40)), st.dictionaries(st.integers(0, 40), st.just("stale")))
def test_the_sum_is_that_of_the_offsets_whatever_was_told_twice(
    batches: list[tuple[int, int]], kept: set[int], own: dict[int, str]
) -> None:
    told = [Batch(first, first + more, 0) for first, more in batches]
    ends = Ends(told, {offset: Told(end, 0) for offset, end in own.items()})
    counted = settled(SOURCE, range(41), sorted(kept), 0, ends)
    assert sum(counted.ends.values()) + len(counted.unsettled) == counted.passed == 41
    assert settled(SOURCE, range(41), sorted(kept), 0, Ends(told * 2, ends.own)) == counted
    covered = {offset for batch in told for offset in range(batch.first, batch.last + 1)}
    assert {offset for offset in range(45) if offset in Covered.of(told)} == covered
    assert set(counted.unsettled) == kept - covered - own.keys()


def total(counted: Sequence[Settled]) -> Counter[str]:
    """Return the ends of all sources, with what was passed; fail if something has no end."""
    assert [each.unsettled for each in counted] == [[]] * len(counted)
    ends = sum((Counter(each.ends) for each in counted), Counter[str]())
    return ends + Counter(passed=sum(each.passed for each in counted))


async def passed(settings: KafkaSettings, sink: str, count: int) -> None:
    """Return when a sink has committed so many offsets."""
    with anyio.fail_after(60):
        while True:
            async with admin(settings) as client:
                committed = await committed_offsets(client, settings.group(f"sink-{sink}"))
            if sum(committed.values()) >= count:
                return
            await anyio.sleep(0.1)


@pytest.mark.kafka
async def test_each_way_to_end_is_told_and_the_counters_say_the_same(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    sink = ScriptedSink()
    choice = Choice({}, {"test-users": {"properties": {"owner_id": "tester"}}})
    delivery = Delivery("test", sink, choice)
    app = create_sink_app(delivery, SqlSettings(batch_rows=99), settings, SETTINGS, tmp_path)
    before = counters()
    records = [state_record("c1", n) for n in (1, 3, 2)]
    await send(settings, "case-state", [*records, state_record("c2", 1, owner_id="tester")])
    async with running(app):
        await passed(settings, "test", 4)
        sink.script.append(refuse("bad"))
        replays = {"sink:test": state_with_schema("bad", 1), "sink:other": state_record("c3", 1)}
        await send(settings, "replays", [again_at(to, made) for to, made in replays.items()])
        await passed(settings, "test", 6)
    counted = await count_settled(settings, {"test": ["case-state"]})
    ends = total(counted)
    assert ends.pop("passed") == sum(ends.values()) == 6
    assert ends["written"] + ends["superseded"] == 3
    assert (ends["excluded by test-users"], ends["dead"], ends[FOR_OTHERS]) == (1, 1, 1)
    assert total(await count_settled(settings, {"test": ["case-state"]}, 1))["passed"] <= 6
    assert counters() - before == Counter(ends) + Counter(passed=6)


def again_at(target: str, record: Made) -> Made:
    return replay(record, target, key=record.key or b"")


def counters() -> Counter[str]:
    """Return what the metrics say of the sink `test`: its ends, and the offsets it passed."""
    found: Counter[str] = Counter()
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.labels.get("sink") != "test":
                continue
            if sample.name == "casewire_sink_events_total":
                found[sample.labels["outcome"]] += int(sample.value)
            if sample.name == "casewire_sink_offsets_total":
                found["passed"] += int(sample.value)
    return found


@pytest.mark.kafka
async def test_an_offset_that_nothing_tells_of_is_found(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    """A group that is moved forward by hand skips events: nobody else would ever notice."""
    await send(settings, "case-state", [state_record(f"c{n}", 1) for n in range(8)])
    async with running(sink_app(ScriptedSink(), settings, tmp_path)):
        await passed(settings, "test", 8)
    skipped = state_record("c0", 2)
    await send(settings, "case-state", [skipped])
    place = partition_of(skipped.key or b"", 4)
    async with admin(settings) as client:
        group = settings.group("sink-test")
        committed = await client.list_consumer_group_offsets(group)
        topic = settings.topic("case-state")
        moved = {tp: at.offset + 1 for tp, at in committed.items() if tp == (topic, place)}
    await commit(settings, group, moved)
    counted = await count_settled(settings, {"test": ["case-state"]})
    lost = [each for each in counted if each.unsettled]
    assert [each.source.partition for each in lost] == [place]
    assert len(lost[0].unsettled) == 1
    told = unsettled_problem(lost[0])
    assert "the sink test has passed 1 events" in told
    assert not (await count_sums(settings, {"test": ["case-state"]})).match


async def commit(settings: KafkaSettings, group: str, offsets: dict[object, int]) -> None:
    async with AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers, group_id=group, enable_auto_commit=False
    ) as consumer:
        consumer.assign(list(offsets))
        await consumer.commit(offsets)


@pytest.mark.kafka
async def test_killed_between_ledger_and_commit_an_event_counts_once(
    kafka: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    kafka_settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=1
    )
    system = System(tmp_path, kafka_settings, {"files": {"type": "sql"}})
    await create(system)
    role = "sink files"
    system.start(role)
    try:
        for attempt in range(20):
            await system.ready([role])
            record = state_record(f"c{attempt}", 1)
            await send(kafka_settings, "case-state", [record])
            await read_until(kafka_settings, "deliveries", partial(tells_of, attempt))
            system.kill(role)
            async with admin(kafka_settings) as client:
                committed = await committed_offsets(client, kafka_settings.group("sink-files"))
            system.start(role)
            if sum(committed.values()) <= attempt:
                break
        else:
            raise AssertionError("the kill always came too late")
        await system.ready([role])
        await system.caught_up()
    finally:
        system.stop()
    ledger = await read_ledger(kafka_settings)
    source = Source("sink:files", kafka_settings.topic("case-state"), 0)
    covering = [each for each in ledger[source].batches if each.first <= attempt <= each.last]
    assert len(covering) == 2
    counted = total(await count_settled(kafka_settings, {"files": ["case-state"]}))
    assert counted == {WRITTEN: attempt + 1, "passed": attempt + 1}


def tells_of(offset: int, records: Sequence[ConsumerRecord]) -> bool:
    return any(batch.first_offset <= offset <= batch.last_offset for batch in batches(records))
