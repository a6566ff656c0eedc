"""A worker that does not get on is told of; one that is slow, or has nothing to do, is not."""

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from casewire.alerts.desk import Desk
from casewire.alerts.stalls import Progress, Worker
from casewire.alerts.troubles import Pace
from casewire.alerts.watch import Watch, explained, workers
from schemas.errors import TransientError
from schemas.settings import KafkaSettings
from schemas.times import from_microseconds
from sinks.sql_settings import SqlSettings
from streams.alarms import of_target
from tests.kafka_tools import create_topics
from tests.servers import KafkaServer
from tests.streams.made import state_record
from tests.streams.test_worker import send

WORKER = Worker(stage="sink:a", name="sink-a", group="g", topics=["t"], patience=600)

P = ("t", 0)


def at(minute: int) -> str:
    return from_microseconds(minute * 60_000_000)


def watched(*seen: tuple[int, int], members: int = 1) -> Progress:
    """Return a watch that saw these committed offsets and ends, a minute apart."""
    progress = Progress(WORKER)
    for minute, (offset, end) in enumerate(seen):
        progress.look({P: offset}, {P: end}, members, at(minute))
    return progress


def test_who_stands_still_before_what_waits_is_stuck() -> None:
    progress = watched(*[(5, 9)] * 20)
    assert progress.stuck(at(10), 600) == []
    assert progress.stuck(at(11), 600) == [P]
    assert progress.report(at(10)) is None
    alert = progress.report(at(11))
    assert alert is not None
    assert alert.group == "/sink:a/stalled/sink-a"
    assert "since 1970-01-01 00:00 UTC" in alert.text


def test_who_moves_or_has_nothing_to_do_is_not() -> None:
    for seen in ([(n, 100) for n in range(20)], [(9, 9)] * 20, [(5, 9)] * 10 + [(6, 9)] * 10):
        assert watched(*seen).stuck(at(19), 600) == []


def test_who_has_never_committed_is_stuck_as_well() -> None:
    progress = Progress(WORKER)
    for minute in range(20):
        progress.look({}, {P: 1, ("t", 1): 0}, 1, at(minute))
    assert progress.stuck(at(19), 600) == [P]


def test_whose_processes_are_all_gone_is_told_of_after_two_minutes_if_something_waits() -> None:
    alert = watched((5, 9), (5, 9), (5, 9), members=0).report(at(2))
    assert alert is not None
    assert "no process of it has run since 1970-01-01 00:00 UTC" in alert.text
    assert watched((9, 9), (9, 9), (9, 9), members=0).report(at(2)) is None


def test_a_restart_and_a_broker_that_does_not_answer_are_no_news() -> None:
    progress = watched((5, 9), (5, 9), members=0)
    progress.look({P: 5}, {P: 9}, 1, at(2))
    for minute in (3, 4):
        progress.look({P: 5}, {P: 9}, 0, at(minute))
    assert progress.report(at(4)) is None
    progress.not_seen()
    progress.look({P: 5}, {P: 9}, 0, at(8))
    assert progress.report(at(9)) is None
    assert progress.report(at(10)) is not None


def test_a_sink_that_says_why_itself_is_not_told_of_twice() -> None:
    desk = Desk(Pace(900), [])
    assert not explained(desk, WORKER)
    error = TransientError("down")
    desk.report(of_target("a", "target_unavailable", error, safe=False, raised_at=at(0)))
    assert explained(desk, WORKER)


def test_the_streams_and_each_sink_are_watched_with_the_patience_that_it_needs() -> None:
    sinks = {"a": SqlSettings(topics=["case-state"]), "b": SqlSettings(batch_seconds=300)}
    found = workers(KafkaSettings(topic_prefix="x."), sinks)
    assert [each.group for each in found] == ["x-streams", "x-sink-a", "x-sink-b"]
    assert found[1].topics == ["x.case-state"]
    assert found[2].patience == found[1].patience + 600


@pytest.mark.anyio
@pytest.mark.kafka
async def test_what_nobody_reads_is_seen_on_a_broker(kafka: KafkaServer, prefix: str) -> None:
    await create_topics(kafka.bootstrap_servers, prefix, ["case-state"], partitions=2)
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix)
    await send(settings, "case-state", [state_record("c1", 1)])
    worker = workers(settings, {"a": SqlSettings(topics=["case-state"])})[1]
    watch = Watch(settings, [Progress(worker)], every_seconds=0)
    desk = Desk(Pace(900), [])
    with anyio.fail_after(60):
        while True:  # the broker may still be making its topic of offsets
            await watch.look(desk, at(0))
            if not await watch.look(desk, at(0)):
                break
    assert await watch.look(desk, at(2))
    (trouble,) = desk.troubles.values()
    assert trouble.group == "/sink:a/stalled/sink-a"
    assert "no process of it" in trouble.text
    reader = AIOKafkaConsumer(
        prefix + "case-state", bootstrap_servers=kafka.bootstrap_servers, group_id=worker.group
    )
    async with reader:
        assert await watch.look(desk, at(11))
        assert "takes none of them" in desk.troubles[trouble.group].text
        down = TransientError("down")
        desk.report(of_target("a", "target_unavailable", down, safe=False, raised_at=at(11)))
        places = [TopicPartition(prefix + "case-state", number) for number in (0, 1)]
        await reader.commit(await reader.end_offsets(places))
        assert not await watch.look(desk, at(12))
    desk.look(at(60))
    assert [each.open for each in desk.troubles.values()] == [False, False]
