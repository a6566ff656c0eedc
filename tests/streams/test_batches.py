"""Record batches through Faust: what is leant on, and that a crash acknowledges too little only."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import faust
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.subscription_state import Assignment, SubscriptionState
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import CrashingSupervisor

from casewire.progress import committed_offsets
from casewire.topics import admin
from schemas.settings import KafkaSettings
from streams.app import create_streams_app
from streams.batches.batch import Batch, BatchSchema, Work
from streams.batches.consumer import (
    FETCH_WAIT_MS,
    IDLE_SECONDS,
    BatchConsumer,
    BatchConsumerThread,
    patience,
)
from streams.batches.producer import BatchProducer
from streams.batches.table import BatchTable
from streams.batches.transport import use_batches
from streams.records import Out
from streams.settings import StreamsSettings
from tests.kafka_tools import create_topics, read_all
from tests.servers import KafkaServer
from tests.streams.made import Made
from tests.streams.test_worker import read_until, running, send

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

RECORDS = 400


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Consumer, "_drain_messages"),
        (Consumer, "_getmany"),
        (Consumer, "_wait_next_records"),
        (Consumer, "_new_offset"),
        (Consumer, "_filter_committable_offsets"),
        (driver.Consumer, "_to_message"),
        (driver.Consumer, "_new_consumer_thread"),
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer"),
        (driver.AIOKafkaConsumerThread, "_ensure_consumer"),
        (driver.Producer, "_settings_extra"),
        (driver.Producer, "_ensure_producer"),
        (SubscriptionState, "fetch_context"),
        (Assignment, "state_value"),
        (AIOKafkaConsumer, "seek"),
    ],
)
def test_what_is_leant_on_is_still_there(owner: type, name: str) -> None:
    assert callable(getattr(owner, name))


@pytest.mark.parametrize(
    ("ours", "names"),
    [
        (
            BatchConsumer,
            "_new_consumer_thread on_partitions_revoked on_partitions_assigned",
        ),
        (
            BatchConsumer,
            "_getmany _drain_messages _new_offset",
        ),
        (BatchConsumerThread, "_create_worker_consumer"),
        (BatchProducer, "_settings_extra"),
        (BatchSchema, "compile"),
        (BatchTable, "apply_changelog_batch"),
    ],
)
def test_what_is_overridden_is_still_called_so(ours: type, names: str) -> None:
    """A method that the base class no longer has would be overridden in vain."""
    for name in names.split():
        assert name in vars(ours)
        assert any(name in vars(base) for base in ours.__mro__[1:]), name


def test_what_a_full_queue_holds_back_is_asked_for_again_before_the_queue_is_empty() -> None:
    assert patience(()) == IDLE_SECONDS
    assert patience({TP("cases", 0)}) < FETCH_WAIT_MS / 1000


def test_the_consumer_takes_the_wait_of_a_fetch() -> None:
    assert "_fetch_max_wait_ms" in AIOKafkaConsumer.__init__.__code__.co_names


@dataclass(frozen=True, slots=True)
class Fetched(Made):
    """A record as the consumer gives it, with the broker's time in milliseconds."""

    timestamp: int = 0


def test_batches_that_change_one_table_finish_one_after_the_other(tmp_path: Path) -> None:
    """Whatever topic they were read from: a store takes changes in the changelog's order."""
    app = create_streams_app(KafkaSettings(), StreamsSettings(), tmp_path)
    states: Any = app.tables["case-state"]
    folds: Any = app.tables["case-folds"]
    chains = []
    for topic, partition in (("cases", 0), ("case-changes", 0), ("cases", 1)):
        batch = Batch(TP(f"casewire.{topic}", partition), [Fetched(b"")])
        states.changes(batch)
        folds.changes(batch)
        chains.append(batch.chain)
    assert chains == [TP("casewire.case-state", number) for number in (0, 0, 1)]


class Waiting(Work):
    """Work that is done when it is told so."""

    def __init__(self, partition: int) -> None:
        super().__init__(TP("cases", partition))
        self.told = asyncio.Event()

    async def settle(self) -> None:
        await self.told.wait()


async def test_what_another_agent_began_meanwhile_is_still_unfinished(tmp_path: Path) -> None:
    """Else the agents could have more batches under way than they may."""
    app = create_streams_app(KafkaSettings(), StreamsSettings(), tmp_path)
    consumer: Any = app.consumer
    before, waited_for, meanwhile = (Waiting(number) for number in range(3))
    with anyio.fail_after(10):
        await consumer.finish(before, 5)
        waits = asyncio.ensure_future(consumer.finish(waited_for, 1))
        await asyncio.sleep(0)
        await consumer.finish(meanwhile, 5)
        waited_for.told.set()
        await consumer.last[waited_for.chain]
        before.told.set()
        await waits
        assert consumer.unfinished == {consumer.last[meanwhile.chain]}
        meanwhile.told.set()
        await consumer.last[meanwhile.chain]
    consumer._thread.thread_loop.close()  # it was never started


async def committed(settings: KafkaSettings, group: str, topic: str) -> int:
    async with admin(settings) as client:
        offsets = await committed_offsets(client, group)
    return sum(offset for (name, _), offset in offsets.items() if name == settings.topic(topic))


def app_that(
    settings: KafkaSettings, folder: Path, each: Callable[[Any], None]
) -> tuple[faust.App, list[Batch]]:
    """Return a worker that copies `cases` to the table `case-state`; `each` sees every record."""
    app = faust.App(
        settings.group("copy"),
        broker=f"kafka://{settings.bootstrap_servers}",
        datadir=folder,
        Table=BatchTable,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=8192,
        stream_buffer_maxsize=4,
        broker_session_timeout=6,
        broker_heartbeat_interval=1,
        broker_commit_interval=0.1,
    )
    use_batches(app)
    seen: list[Batch] = []
    source = app.topic(settings.topic("cases"), schema=BatchSchema())
    target = app.topic(settings.topic("case-state"), schema=BatchSchema(), compacting=True)
    table: Any = app.Table("copy", key_type=bytes, value_type=bytes, changelog_topic=target)

    async def copy(stream: faust.StreamT[bytes]) -> None:
        async for batch in stream.noack():  # type: ignore[attr-defined]
            seen.append(batch)
            changes = table.changes(batch)
            for record in batch.records:
                each(record)
                changes.put(record.key, record.value, [])
            await changes.send()
            await batch.send(settings.topic("forms"), [Out(b"k", b"v", [])])
            await batch.done(ahead=2)

    app.agent(source, supervisor_strategy=CrashingSupervisor)(copy)
    return app, seen


async def test_an_exception_acknowledges_nothing_and_the_next_start_does_it_again(
    kafka: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix)
    await create_topics(settings.bootstrap_servers, prefix, ["cases", "case-state", "forms"], 1)
    filler = b"x" * 200
    records = [Made(b"%05d" % i + filler, key=b"key%d" % (i % 7)) for i in range(RECORDS)]
    await send(settings, "cases", records)

    def fail(record: Any) -> None:
        if record.offset == RECORDS // 2:
            raise RuntimeError("injected")

    app, batches = app_that(settings, tmp_path / "1", fail)
    with anyio.fail_after(60), pytest.raises(RuntimeError, match="injected"):
        async with running(app):
            await app.wait_until_stopped()
    assert len(batches) > 1
    copied = await read_all(settings.bootstrap_servers, settings.topic("case-state"))
    before = await committed(settings, settings.group("copy"), "cases")
    assert before <= RECORDS // 2
    assert len(copied) >= before

    app, _ = app_that(settings, tmp_path / "2", lambda _record: None)
    async with running(app):
        await read_until(settings, "case-state", lambda found: ends_with(found, records))
    assert await committed(settings, settings.group("copy"), "cases") == RECORDS
    copied = await read_all(settings.bootstrap_servers, settings.topic("case-state"))
    assert {record.value for record in copied} == {record.value for record in records}
    for key in {record.key for record in records}:
        last = [record.value for record in copied if record.key == key][-1]
        assert last == [record.value for record in records if record.key == key][-1]


@pytest.mark.parametrize("count", [5, RECORDS])
async def test_what_a_rebalance_dropped_is_fetched_again(
    kafka: KafkaServer, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Also when nothing comes behind it that would show the gap."""
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix)
    await create_topics(settings.bootstrap_servers, prefix, ["cases", "case-state", "forms"], 1)
    records = [Made(b"%05d" % i + b"x" * 200, key=b"key%d" % (i % 7)) for i in range(count)]
    await send(settings, "cases", records)
    wanted = BatchConsumer._wanted
    dropped: set[TP] = set()

    def drop_the_first(self: BatchConsumer, tp: TP, active: set[TP] | None) -> bool:
        first = tp not in dropped
        dropped.add(tp)
        return not first and wanted(self, tp, active)

    monkeypatch.setattr(BatchConsumer, "_wanted", drop_the_first)
    app, _ = app_that(settings, tmp_path, lambda _record: None)
    async with running(app):
        copied = await read_until(settings, "case-state", lambda found: ends_with(found, records))
    assert dropped
    assert [record.value for record in copied] == [record.value for record in records]


def ends_with(found: list[Any], records: list[Made]) -> bool:
    return bool(found) and found[-1].value == records[-1].value
