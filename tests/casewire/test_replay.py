"""`casewire replay`: what is chosen, what it would change, and that it makes nothing older."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import faust
import orjson
import pytest
from anyio import to_thread

from casewire.cli import run
from casewire.forecast import Fate, fate
from casewire.sums import count_sums
from schemas.settings import KafkaSettings
from schemas.values import Json
from sinks.sql_settings import SqlSettings
from sinks.sqlite import SqliteSink
from streams.app import create_sink_app, create_streams_app
from streams.decode import decode
from streams.delivery import Delivery
from streams.records import header
from tests.casewire.test_dead_letters import quiet as quiet  # noqa: PLC0414 - a fixture
from tests.kafka_tools import ConsumerRecord, read_all
from tests.streams.made import Made, captured
from tests.streams.test_worker import (
    SETTINGS,
    case_body,
    ended,
    form_body,
    judged,
    read_until,
    running,
    send,
    settings as settings,  # noqa: PLC0414 - a fixture
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("version", "held", "expected"),
    [(1, None, "newer"), (2, 1, "newer"), (2, 2, "same"), (1, 2, "older")],
)
def test_what_is_sent_is_newer_the_same_or_older(
    version: int, held: int | None, expected: Fate
) -> None:
    assert fate(version, held) == expected


_SINKS = """
[sinks.sqlite]
type = "sql"
[sinks.hook]
type = "http"
url = "http://127.0.0.1:9/"
"""


async def said(
    capfd: pytest.CaptureFixture[str],
    settings: KafkaSettings,
    data_dir: Path,
    *arguments: str,
    status: int = 0,
) -> str:
    """Run `casewire replay`, and return what it printed."""
    config = data_dir / "casewire.toml"
    config.write_text(_SINKS, encoding="utf-8")
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "CASEWIRE_KAFKA__TOPIC_PREFIX": settings.topic_prefix,
        "CASEWIRE_KAFKA__PARTITIONS": str(settings.partitions),
        "CASEWIRE_DATA_DIR": str(data_dir),
    }
    assert (
        await to_thread.run_sync(run, ["--config", str(config), "replay", *arguments], env)
        == status
    )
    printed = capfd.readouterr()
    return printed.out + printed.err


def counts(text: str) -> Mapping[str, int]:
    found: dict[str, dict[str, Json]] = orjson.loads(text)
    return {name: each["count"] for name, each in found.items() if each["count"]}


def ids(records: Sequence[ConsumerRecord], key: bytes) -> list[str]:
    return [header(each.headers, "ce_id") or "" for each in records if each.key == key]


@pytest.mark.kafka
async def test_captured_events_are_processed_again_in_their_order(
    settings: KafkaSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sent = [captured(case_body("c1", 60 * n, "abcdefgh"[: n + 1], n=str(n))) for n in range(6)]
    form = captured(form_body("f1", 0, {"update": {"n": "9"}}, case_id="c2"))
    await send(settings, "captured", [*reversed(sent), form, captured(b"<broken")])
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        await read_until(settings, "deliveries", lambda found: judged(found) == 8)
        first = await said(capfd, settings, tmp_path, "--case", "c1", "--dry-run", "--json")
        assert counts(first.splitlines()[0]) == {"same": 1, "older": 5}
        assert "left out" not in await said(capfd, settings, tmp_path, "--case", "c2")
        told = await said(capfd, settings, tmp_path, "--domain", "demo", "--kind", "case")
        assert "left out, since they cannot be read: 1" in told
        assert "again: 6" in told
        assert "again: 0" in await said(capfd, settings, tmp_path, "--until", "2020-01-01")
        await read_until(settings, "deliveries", lambda found: judged(found) == 16)
    replays = await read_all(settings.bootstrap_servers, settings.topic("replays"))
    captured_ids = [header(record.headers, "ce_id") for record in sent]
    assert ids(replays, b"demo/c1") == captured_ids
    assert ids(replays, b"demo/f1") == [header(form.headers, "ce_id")]
    states = await read_all(settings.bootstrap_servers, settings.topic("case-state"))
    versions = [header(each.headers, "casewire-version") for each in states]
    assert len(versions) == len(set(versions))
    assert (await count_sums(settings)).match


def files_app(settings: KafkaSettings, data_dir: Path) -> faust.App:
    delivery = Delivery("sqlite", SqliteSink(data_dir / "sqlite"))
    return create_sink_app(delivery, SqlSettings(), settings, SETTINGS, data_dir)


def query(data_dir: Path, text: str) -> list[tuple[Json, ...]]:
    with closing(sqlite3.connect(data_dir / "sqlite" / "demo.db", isolation_level=None)) as found:
        return found.execute(text).fetchall()


@pytest.mark.kafka
async def test_a_sink_gets_again_what_it_has_lost_and_nothing_older(
    settings: KafkaSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bodies = [case_body(f"c{n}", at, "ab"[: at + 1], n=str(at)) for at in (0, 1) for n in range(3)]
    await send(settings, "captured", [captured(body) for body in bodies])
    into = ("--sink", "sqlite", "--domain", "demo")
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        await read_until(settings, "deliveries", lambda found: judged(found) == 6)
    written = len(await read_all(settings.bootstrap_servers, settings.topic("case-state")))
    async with running(files_app(settings, tmp_path)):
        await read_until(settings, "deliveries", lambda found: ended(found) == 6 + written)
        query(tmp_path, "DELETE FROM cases WHERE case_id = 'c0'")
        query(tmp_path, "DELETE FROM case_patient WHERE cw_case_id = 'c0'")
        query(tmp_path, "UPDATE cases SET version = version + 5 WHERE case_id = 'c1'")
        query(tmp_path, "UPDATE case_patient SET n = 'newer' WHERE cw_case_id = 'c1'")
        dry = await said(capfd, settings, tmp_path, *into, "--dry-run", "--json")
        assert {name: each["keys"] for name, each in orjson.loads(dry).items() if each["keys"]} == {
            "newer": ["demo/c0"],
            "same": ["demo/c2"],
            "older": ["demo/c1"],
        }
        assert "again: 3" in await said(capfd, settings, tmp_path, *into)
        await read_until(settings, "deliveries", lambda found: ended(found) == 9 + written)
    rows = query(tmp_path, "SELECT cw_case_id, n FROM case_patient ORDER BY 1")
    assert rows == [("c0", "1"), ("c1", "newer"), ("c2", "1")]


@pytest.mark.kafka
async def test_a_sink_without_versions_may_get_each_event_as_it_came(
    settings: KafkaSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sent = [captured(case_body("c1", 60 * n, "abc"[: n + 1])) for n in range(3)]
    typed = [decode(each).out for each in reversed(sent)]
    await send(settings, "cases", [Made(out.value, out.key, out.headers) for out in typed])
    only = ("--case", "c1", "--as-recorded", "--sink")
    assert "leave out --as-recorded" in await said(
        capfd, settings, tmp_path, *only, "sqlite", status=1
    )
    assert "again: 3" in await said(capfd, settings, tmp_path, *only, "hook")
    replays = await read_all(settings.bootstrap_servers, settings.topic("replays"))
    assert [each.value for each in replays] == [out.value for out in reversed(typed)]
    assert {header(each.headers, "casewire-target") for each in replays} == {"sink:hook"}


@pytest.mark.kafka
async def test_many_are_asked_for_and_wrong_usage_is_said(
    settings: KafkaSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await send(settings, "captured", [captured(case_body("c1", n, "")) for n in range(101)])
    told = await said(capfd, settings, tmp_path, "--case", "c1", status=1)
    assert "give --yes" in told
    assert not await read_all(settings.bootstrap_servers, settings.topic("replays"))
    assert "say which events" in await said(capfd, settings, tmp_path, status=2)
    unknown = await said(capfd, settings, tmp_path, "--case", "c1", "--sink", "sqlit", status=1)
    assert "did you mean sqlite?" in unknown
    assert "is no time" in await said(capfd, settings, tmp_path, "--since", "noon", status=2)
    assert "again: 101" in await said(capfd, settings, tmp_path, "--case", "c1", "--yes")
