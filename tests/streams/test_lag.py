"""How far a worker is behind, by its own metrics."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import faust
import pytest
from faust.types import TP
from hypothesis import given, strategies as st
from prometheus_client import REGISTRY

from schemas.partitioner import partition_of
from schemas.settings import KafkaSettings
from sinks.sql_settings import SqlSettings
from streams.app import create_sink_app, create_streams_app
from streams.batches.lag import Behind, Lag, behind
from streams.delivery import Delivery
from streams.worker_metrics import WorkerMetrics
from tests.kafka_tools import read_all
from tests.streams.made import state_record
from tests.streams.test_delivery import ScriptedSink, down
from tests.streams.test_worker import (
    SETTINGS,
    running,
    send,
    settings as settings,  # noqa: PLC0414 - a fixture
    sink_app,
)

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

offsets = st.integers(0, 9)


@given(offsets, offsets, st.floats(0, 1e9), st.floats(0, 1e9))
def test_who_has_committed_all_is_not_behind(
    end: int, committed: int, oldest: float, now: float
) -> None:
    found = behind(end, committed, oldest, now)
    assert found.events == max(0, end - committed)
    assert found.seconds == (max(0.0, now - oldest) if end > committed else 0)


def sums(app: faust.App, settings: KafkaSettings) -> Mapping[str, float]:
    """Return what the worker tells of itself, each metric's sum over its labels."""
    told = WorkerMetrics(app, "sink-test", settings.short).collect()
    return {metric.name: sum(sample.value for sample in metric.samples) for metric in told}


async def until(
    app: faust.App, settings: KafkaSettings, name: str, enough: Callable[[float], bool]
) -> float:
    """Return what the worker tells when it is enough; the name is without `casewire_`."""
    with anyio.fail_after(60):
        while True:
            value = sums(app, settings)[f"casewire_{name}"]
            if enough(value):
                return value
            await anyio.sleep(0.05)


async def test_it_grows_while_the_target_is_down_and_ends_when_it_is_back(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    back = anyio.Event()

    async def wait(_seconds: float) -> None:
        await back.wait()

    delivery = Delivery("test", ScriptedSink(down), sleep=wait)
    app = create_sink_app(delivery, SqlSettings(), settings, SETTINGS, tmp_path)
    told = sums(app, settings)
    assert (told["casewire_partitions"], told["casewire_lag_events"]) == (0, 0)
    await send(settings, "case-state", [state_record(f"c{n}", 1) for n in range(8)])
    async with running(app):
        await until(app, settings, "lag_events", lambda value: value == 8)
        for name in ("lag_seconds", "commit_age_seconds"):
            early = await until(app, settings, name, bool)
            await until(app, settings, name, early.__lt__)
        assert REGISTRY.get_sample_value("casewire_sink_retrying", {"sink": "test"}) == 1
        back.set()
        for name in ("lag_events", "lag_seconds", "commit_age_seconds"):
            await until(app, settings, name, lambda value: value == 0)
        assert REGISTRY.get_sample_value("casewire_sink_retrying", {"sink": "test"}) == 0
        assert sums(app, settings)["casewire_partitions"] == 4 * len(
            ("case-state", "form-state", "replays")
        )


@dataclass
class Reading:
    """A consumer that has fetched nothing yet."""

    app: Any
    offsets: Mapping[TP, int]
    pending: Mapping[TP, Any] = field(default_factory=dict)

    def sources(self) -> Collection[TP]:
        return self.offsets.keys()

    def committed(self, tp: TP) -> int:
        return self.offsets[tp]


async def test_the_oldest_record_is_read_where_it_has_not_been_fetched(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    await send(settings, "case-state", [state_record("c", n) for n in range(1, 4)])
    topic, number = settings.topic("case-state"), partition_of(b"demo/c", 4)
    behind_one, done, empty = (TP(topic, (number + more) % 4) for more in (0, 1, 2))
    reading = Reading(
        sink_app(ScriptedSink(), settings, tmp_path), {behind_one: 1, done: 0, empty: 0}
    )
    lag = Lag(reading)
    try:
        await lag._look()
        before = time.time()
        found = lag.places()
    finally:
        await lag._reader.stop()
    (second,) = [
        record for record in await read_all(settings.bootstrap_servers, topic) if record.offset == 1
    ]
    assert found[behind_one].events == 2
    assert found[behind_one].seconds >= before - second.timestamp / 1000
    assert (found[done], found[empty]) == (Behind(), Behind())


async def test_a_recovery_tells_what_it_has_left_to_read(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    await send(settings, "case-state", [state_record(f"c{n}", 1) for n in range(200)])
    app = create_streams_app(settings, SETTINGS, tmp_path)
    left: set[tuple[float, float]] = set()
    recovered = anyio.Event()

    async def look() -> None:
        while not recovered.is_set():
            told = sums(app, settings)
            left.add((told["casewire_recovering"], told["casewire_recovery_left_records"]))
            await anyio.sleep(0.001)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        async with running(app):
            await until(app, settings, "table_states", lambda value: value == 200)
            await until(app, settings, "recovering", lambda value: value == 0)
            recovered.set()
    assert (1, 200) in left
