"""`casewire deliveries` tells the story of one case at each sink."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson
import pytest
from anyio import to_thread

from casewire.case_deliveries import UNTOLD, WAITING, Passed, ended
from casewire.cli import run
from casewire.ledger import Batch, Ends, Source, Told
from schemas.settings import KafkaSettings
from schemas.values import Json
from sinks.match import Choice
from sinks.sql_settings import SqlSettings
from streams.app import create_sink_app
from streams.delivery import Delivery
from tests.casewire.test_settled import passed
from tests.streams.made import state_record
from tests.streams.test_delivery import ScriptedSink
from tests.streams.test_replays import replay, state_with_schema
from tests.streams.test_worker import (
    SETTINGS,
    running,
    send,
    settings as settings,  # noqa: PLC0414 - a fixture
)

pytestmark = pytest.mark.anyio

TOPIC = "casewire.case-state"


def version(number: int, offset: int, stage: str = "") -> Passed:
    return Passed("demo/c1", number, "2026-01-01T00:00:00.000000Z", TOPIC, 0, offset, stage)


def test_each_version_has_the_end_that_was_told_first_at_each_sink() -> None:
    ledger = {
        Source("sink:files", TOPIC, 0): Ends(
            [Batch(2, 4, 7000), Batch(2, 4, 1000)], {3: Told("superseded", 2000)}
        )
    }
    lying = [version(5, 4), version(3, 3), version(1, 1), version(9, 9), version(2, 2, "sink:x")]
    found = list(ended("files", lying, ledger, {(TOPIC, 0): 5}))
    assert [(each.version, each.outcome, each.at) for each in found] == [
        (1, UNTOLD, ""),
        (3, "superseded", "1970-01-01T00:00:02.000000Z"),
        (5, "written", "1970-01-01T00:00:01.000000Z"),
        (9, WAITING, ""),
    ]


async def said(
    capfd: pytest.CaptureFixture[str], settings: KafkaSettings, tmp_path: Path, *arguments: str
) -> str:
    """Run `casewire deliveries` with one sink, `test`, and return what it printed."""
    config = tmp_path / "casewire.toml"
    config.write_text('[sinks.test]\ntype = "sql"\n', encoding="utf-8")
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "CASEWIRE_KAFKA__TOPIC_PREFIX": settings.topic_prefix,
        "CASEWIRE_KAFKA__PARTITIONS": str(settings.partitions),
    }
    command = ["--config", str(config), "deliveries", *arguments]
    assert await to_thread.run_sync(run, command, env) == 0
    return capfd.readouterr().out


def story(printed: str) -> Sequence[tuple[int, str, bool]]:
    told: list[Mapping[str, Json]] = orjson.loads(printed)
    return [(each["version"], each["outcome"], each["replayed"]) for each in told]


@pytest.mark.kafka
async def test_a_case_has_a_story_at_a_sink(
    settings: KafkaSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sink = ScriptedSink()
    choice = Choice({"case_type": "patient"}, {})
    delivery = Delivery("test", sink, choice)
    app = create_sink_app(delivery, SqlSettings(), settings, SETTINGS, tmp_path)
    first = [state_record("c1", 1, case_type="other"), state_record("c2", 7)]
    await send(settings, "case-state", first)
    async with running(app):
        await passed(settings, "test", 2)
        await send(settings, "case-state", [state_record("c1", 3)])
        await passed(settings, "test", 3)
        sink.script.append(lambda messages: ["stale"])
        await send(settings, "replays", [replay(state_with_schema("c1", 2), "sink:test")])
        await passed(settings, "test", 4)
    await send(settings, "case-state", [state_record("c1", 4)])
    expected = [
        (1, "excluded by match", False),
        (2, "stale", True),
        (3, "written", False),
        (4, WAITING, False),
    ]
    assert story(await said(capfd, settings, tmp_path, "c1", "--json")) == expected
    by_key = await said(capfd, settings, tmp_path, "c1", "--domain", "demo", "--json")
    assert story(by_key) == expected
    shown = (await said(capfd, settings, tmp_path, "demo/c1")).splitlines()
    assert shown[0] == "test"
    assert ["excluded by match" in shown[1], "stale (replay)" in shown[2]] == [True, True]
    assert "no topic" in await said(capfd, settings, tmp_path, "c9")
