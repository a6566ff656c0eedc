"""The role on a real broker, with a real mail server and a real HTTP receiver."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from casewire.alerts.command import make_role
from casewire.alerts.role import AlertsRole
from casewire.alerts.state import saved_state
from casewire.alerts.troubles import Pace
from casewire.cli import run
from casewire.config import Config, load_config
from casewire.reading import read_topic
from schemas.alert import Alert
from schemas.errors import InvalidEventError
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS
from streams.dead_letters import dead_letter, rejection_of
from streams.ledger import Ledger
from streams.records import Out, header
from tests.alerts.conftest import Mailbox, Receiver
from tests.kafka_tools import create_topics, read_all
from tests.servers import KafkaServer, free_port
from tests.streams.made import Made, captured
from tests.streams.test_worker import send

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

GROUP = "demo/state/invalid_field/cases"
FAILED_AT = "2026-11-22T10:00:00.000000Z"


@pytest.fixture
async def env(kafka: KafkaServer, prefix: str, tmp_path: Path, mailbox: Mailbox) -> dict[str, str]:
    """The environment of an installation that mails to `mailbox`."""
    await create_topics(kafka.bootstrap_servers, prefix, TOPICS, partitions=2)
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "CASEWIRE_DATA_DIR": str(tmp_path / "var"),
        "CASEWIRE_METRICS_BIND": f"127.0.0.1:{free_port()}",
        "CASEWIRE_KAFKA__TOPIC_PREFIX": prefix,
        "CASEWIRE_KAFKA__PARTITIONS": "2",
        "CASEWIRE_ALERTS__MAIL_TO": "night@example.org",
        "CASEWIRE_ALERTS__MAIL_FROM": "casewire@example.org",
        "CASEWIRE_ALERTS__SMTP_HOST": "127.0.0.1",
        "CASEWIRE_ALERTS__SMTP_PORT": str(mailbox.port),
        "CASEWIRE_ALERTS__SMTP_SECURITY": "none",
    }


@contextlib.asynccontextmanager
async def at_work(config: Config, interval: float = 900) -> AsyncIterator[AlertsRole]:
    role = make_role(config, Pace(interval, gather=0))
    role.decided.every_seconds = 0
    stop = asyncio.Event()
    task = asyncio.create_task(role.run(stop))
    try:
        with anyio.fail_after(60):
            await role.turn.joined.wait()
        yield role
    finally:
        stop.set()
        await task


async def until(come: Callable[[], Any]) -> None:
    with anyio.fail_after(60):
        while True:
            if come():
                return
            await anyio.sleep(0.05)


def event(domain: str = "demo", subject: str = "c1") -> Made:
    record = captured(b'{"name": "a secret"}')
    kept = [each for each in record.headers if each[0] not in ("casewire-domain", "casewire-path")]
    headers = [
        *kept,
        ("casewire-domain", domain.encode()),
        ("casewire-path", f"/api/v1/in/{domain}".encode()),
        ("ce_subject", subject.encode()),
    ]
    return Made(record.value, f"{domain}/{subject}".encode(), headers, "casewire.cases")


def letter(record: Made) -> Out:
    error = InvalidEventError("invalid_field", "a time is none", path="date_modified")
    return dead_letter(record, "state", rejection_of(error), failed_at=FAILED_AT)


def passed(record: Made) -> Sequence[Out]:
    ledger = Ledger("state", written="applied")
    ledger.add(record, "applied")
    return ledger.records()


async def put(kafka: KafkaSettings, topic: str, *records: Out) -> None:
    await send(kafka, topic, [Made(out.value, out.key, out.headers) for out in records])


async def statuses(kafka: KafkaSettings) -> list[tuple[str, str]]:
    records = await read_all(kafka.bootstrap_servers, kafka.topic("alerts"))
    alerts = [Alert.from_json(record.value or b"") for record in records]
    return [(alert.group, alert.status) for alert in alerts]


async def test_a_failure_is_mailed_once_and_the_next_process_goes_on_from_there(
    env: dict[str, str], mailbox: Mailbox, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    env["CASEWIRE_ALERTS__URLS"] = receiver.url("json")
    config = load_config(None, env)
    kafka = config.cluster
    async with at_work(config):
        await put(kafka, "dead-letters", letter(event()), letter(event(subject="c2")))
        await until(lambda: mailbox.mails and receiver.received)
    async with at_work(config):  # the same again, and another trouble
        await put(kafka, "dead-letters", letter(event()), letter(event("other")))
        await until(lambda: len(mailbox.mails) == 2)
    subjects = [mail["Subject"] for mail in mailbox.mails]
    assert subjects == [
        "[Casewire] demo: cases fail at state: invalid_field",
        "[Casewire] other: cases fail at state: invalid_field",
    ]
    first = mailbox.mails[0].get_content()
    for part in ("Project space: demo", "Address: /api/v1/in/demo", "case c1", f"mute {GROUP} "):
        assert part in first
    assert "secret" not in first
    path, webhook = receiver.received[0]
    assert (path, webhook["title"]) == ("/hook", subjects[0])
    assert sorted(await statuses(kafka)) == [
        (GROUP, "opened"),
        ("other/state/invalid_field/cases", "opened"),
    ]
    await asyncio.to_thread(run, ["alerts", "list"], env)
    listed = capsys.readouterr().out
    assert GROUP in listed
    assert "opened was told at" in listed
    nobody = {name: text for name, text in env.items() if "ALERTS" not in name}
    await asyncio.to_thread(run, ["alerts", "list"], nobody)
    assert "nobody is told: see [alerts]" in capsys.readouterr().out


async def test_what_a_channel_did_not_take_is_sent_when_it_is_back(
    env: dict[str, str], mailbox: Mailbox
) -> None:
    config = load_config(None, env)
    mailbox.refuses = True
    async with at_work(config):
        await put(config.cluster, "dead-letters", letter(event()))
        await until(lambda: mailbox.refused)
    assert mailbox.mails == []
    mailbox.refuses = False
    async with at_work(config):
        await until(lambda: mailbox.mails)
    assert await statuses(config.cluster) == [(GROUP, "opened")]


async def test_one_works_and_the_other_takes_over(env: dict[str, str], mailbox: Mailbox) -> None:
    config = load_config(None, env)
    async with contextlib.AsyncExitStack() as first, contextlib.AsyncExitStack() as second:
        a = await first.enter_async_context(at_work(config))
        b = await second.enter_async_context(at_work(config))
        await until(lambda: a.turn.mine != b.turn.mine)
        await put(config.cluster, "dead-letters", letter(event()))
        await until(lambda: mailbox.mails)
        await (first if a.turn.mine else second).aclose()
        await put(config.cluster, "dead-letters", letter(event()), letter(event("other")))
        await until(lambda: len(mailbox.mails) == 2)
    assert [mail["Subject"].split(":")[0] for mail in mailbox.mails] == [
        "[Casewire] demo",
        "[Casewire] other",
    ]


async def test_muted_by_command_it_is_quiet(
    env: dict[str, str], mailbox: Mailbox, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(None, env)
    async with at_work(config):
        await put(config.cluster, "dead-letters", letter(event()))
        await until(lambda: mailbox.mails)
        assert await asyncio.to_thread(run, ["alerts", "mute", GROUP, "--for", "3d"], env) == 0
        assert f"{GROUP} is muted until" in capsys.readouterr().out

        with anyio.fail_after(60):
            while True:
                saved = [record async for record in read_topic(config.cluster, "alert-state")]
                if any(each.muted_until for each in saved_state(saved)[0]):
                    break
    assert await asyncio.to_thread(run, ["alerts", "mute", "demo/x", "--for", "3d"], env) == 1
    assert f"did you mean '{GROUP}'" in capsys.readouterr().err


async def test_it_is_over_when_the_ledger_says_so(env: dict[str, str], mailbox: Mailbox) -> None:
    config = load_config(None, env)
    async with at_work(config, interval=1):
        await put(config.cluster, "dead-letters", letter(event()))
        await until(lambda: mailbox.mails)
        await put(config.cluster, "deliveries", *passed(event()))
        await until(lambda: len(mailbox.mails) == 2)
    assert mailbox.mails[1]["Subject"].startswith("[Casewire] recovered: demo")
    assert mailbox.mails[1]["References"] == mailbox.mails[0]["References"]
    assert await statuses(config.cluster) == [(GROUP, "opened"), (GROUP, "recovered")]


async def test_it_is_over_without_traffic_when_all_letters_are_decided_on(
    env: dict[str, str], mailbox: Mailbox
) -> None:
    config = load_config(None, env)
    first, second = letter(event()), letter(event(subject="c2"))
    async with at_work(config, interval=1):
        await put(config.cluster, "dead-letters", first, second)
        await until(lambda: mailbox.mails)
        for each in (first, second):
            assert len(mailbox.mails) == 1
            captured_id = header(each.headers, "casewire-captured-id") or ""
            command = ["dead-letters", "discard", captured_id, "--reason", "a test", "--yes"]
            assert await asyncio.to_thread(run, command, env) == 0
        await until(lambda: len(mailbox.mails) == 2)
    assert mailbox.mails[1]["Subject"].startswith("[Casewire] recovered: demo")
    assert "has been replayed or discarded" in mailbox.mails[1].get_content()
