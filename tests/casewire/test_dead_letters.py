"""Dead letters are found by what they have in common, repaired, replayed once, or discarded."""

from base64 import b64decode
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import orjson
import pytest
import structlog
from anyio import to_thread

from casewire.choosing import Choice
from casewire.cli import run
from casewire.dead_letters import Wanted, letter_of, original_of, tallies
from casewire.mending import Mending, read_mending
from casewire.reading import in_order
from casewire.sums import count_sums
from schemas.dead_letter import DeadLetter, DeadLetterState
from schemas.errors import Cause, ConfigError, InvalidEventError, Rejection
from schemas.settings import KafkaSettings
from schemas.topics import MEBIBYTE
from schemas.values import Json
from streams.app import create_streams_app
from streams.dead_letters import dead_letter
from streams.records import header
from tests.kafka_tools import read_all
from tests.streams.made import Made, captured, state_record
from tests.streams.test_worker import (
    SETTINGS,
    case_body,
    claimed,
    read_until,
    running,
    send,
    settings as settings,  # noqa: PLC0414 - a fixture
    states,
)

pytestmark = pytest.mark.anyio

FAILED_AT = "2026-01-01T00:00:00.000000Z"


def lettered(
    record: Made, stage: str = "decode", cause: Cause = "malformed_json", path: str = ""
) -> Made:
    """Return the record of a dead letter."""
    why = Rejection(cause, "it is not what it should be", path, "the target's own words")
    out = dead_letter(record, stage, why, failed_at=FAILED_AT)
    return Made(out.value, out.key, out.headers, "casewire.dead-letters")


def takes(wanted: Wanted, record: Made) -> bool:
    value = DeadLetter.from_json(record.value or b"")
    return wanted.takes(letter_of(record, value), original_of(value))


CASE = lettered(replace(state_record("c1", 1), headers=[
    ("ce_id", b"x/state/0"), ("casewire-captured-id", b"x"), ("ce_subject", b"c1"),
    ("casewire-domain", b"demo"), ("casewire-schema", b"case-state/1"),
    ("ce_time", b"2026-01-02T00:00:00.000000Z"),
]), "sink:files", "rejected_by_target", "properties.age")  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (Wanted(), True),
        (Wanted(ids=["x"]), True),
        (Wanted(ids=["x/sink:files/0"]), True),
        (Wanted(ids=["y"]), False),
        (Wanted(stage="sink:files", cause="rejected_by_target", path="properties.age"), True),
        (Wanted(stage="decode"), False),
        (Wanted(cause="unexpected"), False),
        (Wanted(path=""), False),
        (Wanted(choice=Choice(domain="demo", kind="case", case="c1")), True),
        (Wanted(choice=Choice(domain="other")), False),
        (Wanted(choice=Choice(kind="form")), False),
        (Wanted(choice=Choice(form="f2")), False),
        (Wanted(choice=Choice(since="2026-01-02T00:00:00.000000Z")), True),
        (Wanted(choice=Choice(until="2026-01-02T00:00:00.000000Z")), False),
    ],
)
def test_letters_are_chosen_by_what_they_are(wanted: Wanted, taken: bool) -> None:
    assert takes(wanted, CASE) is taken


def test_a_body_that_was_never_read_is_found_by_the_id_in_it() -> None:
    record = lettered(captured(b'{"case_id": "c7', headers=[("server-modified-on", b"now")]))
    assert takes(Wanted(choice=Choice(case="c7", kind="case")), record)
    assert not takes(Wanted(choice=Choice(case="c8")), record)


def test_letters_of_one_cause_are_one_line() -> None:
    records = [lettered(captured(b"{")), lettered(captured(b"[")), CASE]
    letters = [letter_of(each, DeadLetter.from_json(each.value or b"")) for each in records]
    assert [(tally.count, tally.group.stage) for tally in tallies(letters)] == [
        (2, "decode"),
        (1, "sink:files"),
    ]


async def test_records_come_in_the_order_of_their_places() -> None:
    records = [Made(b"", partition=p, offset=o) for p in (0, 1) for o in range(3)]

    async def read() -> list[Made]:
        places = [(1, 2), (0, 0), (5, 5), (1, 0)]

        async def topic() -> AsyncIterator[Made]:
            for record in records:
                yield record

        return [record async for record in in_order(topic(), places)]

    assert [(each.partition, each.offset) for each in await read()] == [(1, 2), (0, 0), (1, 0)]


@pytest.mark.parametrize(
    ("patch", "body", "mended"),
    [
        ([{"op": "replace", "path": "/a", "value": 2}], b'{"a": 1}', b'{"a":2}'),
        ([{"op": "remove", "path": "/b"}], b'{"a": 1}', None),
        ([{"op": "test", "path": "/a", "value": 9}], b'{"a": 1}', None),
        ([{"op": "add", "path": "/a", "value": 2}], b"<a/>", None),
    ],
)
def test_a_patch_applies_or_the_letter_stays_open(
    patch: Sequence[Json], body: bytes, mended: bytes | None
) -> None:
    mending = Mending(patch, None)
    if mended is not None:
        assert mending.mended(body) == mended
        return
    with pytest.raises(InvalidEventError):
        mending.mended(body)


@pytest.mark.parametrize("text", [b"{", b'{"op": "add"}', b'[{"op": "nonsense", "path": "/a"}]'])
def test_what_is_no_patch_is_said_before_anything_is_done(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "patch").write_bytes(text)
    with pytest.raises(ConfigError, match="is no JSON Patch"):
        read_mending(tmp_path / "patch", None)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Workers in this process log as libraries do: standard output is the command's."""
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
    yield
    structlog.reset_defaults()


def command(settings: KafkaSettings, *arguments: str) -> tuple[list[str], dict[str, str]]:
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "CASEWIRE_KAFKA__TOPIC_PREFIX": settings.topic_prefix,
        "CASEWIRE_KAFKA__PARTITIONS": str(settings.partitions),
    }
    return ["dead-letters", *arguments], env


async def said(
    capfd: pytest.CaptureFixture[str], settings: KafkaSettings, *arguments: str, status: int = 0
) -> str:
    """Run `casewire dead-letters`, and return what it printed."""
    assert await to_thread.run_sync(run, *command(settings, *arguments)) == status
    printed = capfd.readouterr()
    return printed.out + printed.err


@pytest.mark.kafka
async def test_an_operator_repairs_and_replays_what_failed(
    settings: KafkaSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = orjson.dumps(orjson.loads(case_body("c1", 0, "a", n="1")) | {"case_id": ""})
    broken = [captured(b"{" + b" " * MEBIBYTE), captured(b"{c3"), captured(bad), captured(bad)]
    await send(settings, "captured", broken)
    (tmp_path / "patch").write_bytes(b'[{"op": "replace", "path": "/case_id", "value": "c1"}]')
    (tmp_path / "body").write_bytes(case_body("c2", 0, "a", n="2"))
    ids = [f"{header(record.headers, 'ce_id')}/decode/0" for record in broken]
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        await read_until(settings, "dead-letters", lambda found: len(found) == 4)
        groups = orjson.loads(await said(capfd, settings, "list", "--json"))
        assert {each["cause"]: each["count"] for each in groups} == {
            "malformed_json": 2,
            "missing_id": 2,
        }
        assert "malformed_json" in await said(capfd, settings, "list")
        shown = orjson.loads(await said(capfd, settings, "show", ids[0], "--json"))
        assert b64decode(shown[0]["body"]) == broken[0].value  # it is not in the letter itself
        patched = ("replay", "--cause", "missing_id", "--patch", str(tmp_path / "patch"))
        assert "again: 2" in await said(capfd, settings, *patched)
        given = ("replay", ids[0], "--body", str(tmp_path / "body"), "--reason", "sent by hand")
        await said(capfd, settings, *given)
        await read_until(settings, "case-state", lambda found: len(found) >= 2)
        again = await said(capfd, settings, *given)
        assert "left so: 1" in again
        assert "again: 0" in again
        # What fails again is open again, and counts its attempts.
        await said(capfd, settings, "replay", ids[1])
        await read_until(settings, "dead-letters", lambda found: len(found) == 5)
    listed = orjson.loads(await said(capfd, settings, "list", "--each", "--json"))
    assert [(each["id"], each["attempts"]) for each in listed] == [(ids[1], 2)]
    await said(capfd, settings, "discard", ids[1], "--reason", "nonsense")
    assert "there are no dead letters that are open" in await said(capfd, settings, "list")
    everything = orjson.loads(
        await said(capfd, settings, "list", "--each", "--json", "--status", "all")
    )
    assert [each["status"] for each in everything] == [
        "replayed", "discarded", "replayed", "replayed",
    ]  # fmt: skip
    assert "sent by hand" in await said(capfd, settings, "show", ids[0])
    found = await read_all(settings.bootstrap_servers, settings.topic("case-state"))
    assert {key: case.properties["n"] for key, case in states(found).items()} == {
        b"demo/c1": "1",
        b"demo/c2": "2",
    }
    kept = await read_all(settings.bootstrap_servers, settings.topic("dead-letter-state"))
    repairs = {
        (record.key or b"").decode(): DeadLetterState.from_json(record.value or b"").repair
        for record in kept
    }
    assert repairs[ids[2]] == {
        "patch": orjson.loads((tmp_path / "patch").read_bytes()),
        "body": None,
    }
    sums = await count_sums(settings)
    assert sums.match
    assert sums.dead == {"malformed_json": 1}


@pytest.mark.kafka
async def test_a_repair_that_does_not_help_is_refused(
    settings: KafkaSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record = captured(b"{")
    await send(settings, "dead-letters", [lettered(record)])
    (tmp_path / "body").write_bytes(b"[")
    (tmp_path / "patch").write_bytes(b"[]")
    for option in ("body", "patch"):
        told = await said(
            capfd, settings, "replay", "--stage", "decode", f"--{option}", str(tmp_path / option),
            status=1,
        )  # fmt: skip
        assert "stays open" in told
    assert "there is no dead letter nobody" in await said(
        capfd, settings, "show", "nobody", status=1
    )
    assert "say which letters" in await said(capfd, settings, "replay", status=2)
    assert not await read_all(settings.bootstrap_servers, settings.topic("replays"))


@pytest.mark.kafka
async def test_a_body_in_pieces_is_repaired_and_replayed(
    settings: KafkaSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body = case_body("c1", 0, "a") + b" " * (9 * MEBIBYTE)
    for topic, record in claimed(body):
        await send(settings, topic, [record])
    (claim,) = await read_all(settings.bootstrap_servers, settings.topic("captured"))
    letter = lettered(Made(claim.value, claim.key, claim.headers, claim.topic), cause="unexpected")
    await send(settings, "dead-letters", [letter])
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        await said(capfd, settings, "replay", "--cause", "unexpected")
        with anyio.fail_after(30):
            await read_until(settings, "cases", lambda found: len(found) == 2)
    letters = await read_all(settings.bootstrap_servers, settings.topic("dead-letters"))
    assert len(letters) == 1
