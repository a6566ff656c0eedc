"""What is on `casewire.replays` is processed again, and makes nothing older."""

from base64 import b64decode
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from casewire.sums import count_sums
from schemas.case import CaseState
from schemas.dead_letter import DeadLetter
from schemas.errors import Cause, Rejection
from schemas.settings import KafkaSettings
from streams.app import create_streams_app
from streams.dead_letters import dead_letter
from streams.decode import decode
from streams.flood import WINDOW, Gate, captured_kind
from streams.records import header
from streams.replays import again, attempts_of
from tests.kafka_tools import read_all
from tests.streams.made import Made, captured, state, state_record
from tests.streams.test_delivery import ScriptedSink
from tests.streams.test_worker import (
    SETTINGS,
    case_body,
    ended,
    judged,
    read_until,
    running,
    send,
    settings as settings,  # noqa: PLC0414 - a fixture
    sink_app,
    states,
    sum_of,
)

pytestmark = pytest.mark.anyio

WHY = Rejection("unexpected", "Casewire failed on it with ZeroDivisionError")


def replay(record: Made, target: str, attempts: int = 1, key: bytes = b"demo/c1") -> Made:
    out = again(record, key, target, attempts)
    return Made(out.value, out.key, out.headers, "casewire.replays")


def letter_of(record: Made, stage: str) -> tuple[str | None, DeadLetter]:
    out = dead_letter(record, stage, WHY, failed_at="2026-01-01T00:00:00.000000Z")
    return header(out.headers, "ce_id"), DeadLetter.from_json(out.value or b"")


def test_a_replay_is_the_record_itself_and_says_so_once() -> None:
    record = captured(b"{", headers=[("x-twice", b"1"), ("x-twice", b"2")])
    once = replay(record, "decode", 2)
    twice = replay(once, "decode", 3)
    for name in ("ce_id", "ce_time", "ce_type", "casewire-domain"):
        assert header(twice.headers, name) == header(record.headers, name)
    assert Counter(name for name, _ in twice.headers)["casewire-origin"] == 1
    assert header(twice.headers, "casewire-origin") == "replay"
    assert attempts_of(twice) == 3
    assert [value for name, value in twice.headers if name == "x-twice"] == [b"1", b"2"]


def test_what_follows_from_a_replay_is_aimed_at_nothing() -> None:
    again_and_again = replay(captured(case_body("c1", 0, "a")), "decode", 4)
    headers = decode(again_and_again).out.headers
    assert header(headers, "casewire-origin") == "replay"
    assert header(headers, "casewire-target") is header(headers, "casewire-attempts") is None


def test_letters_of_one_capture_have_ids_of_their_own_and_count_attempts() -> None:
    blocks = [
        replace(state_record("c1", 1), headers=[("ce_id", b"x/state/%d" % n)]) for n in (1, 2)
    ]
    found = [letter_of(block, "sink:files") for block in blocks]
    assert [event_id for event_id, _ in found] == [
        "x/state/1/sink:files/1",
        "x/state/2/sink:files/2",
    ]
    event_id, letter = letter_of(replay(captured(b"{"), "decode", 2), "decode")
    assert letter.attempts == 2
    assert event_id == f"{letter.captured_id}/decode/0"


def test_letters_that_fail_again_stop_no_worker() -> None:
    letters = [replace(captured(b"{"), offset=offset) for offset in range(WINDOW)]
    again_ = [replace(replay(each, "decode", 2), offset=each.offset) for each in letters]
    assert Gate("decode", captured_kind, 0.9).look(again_, [(each, WHY) for each in again_]) is None
    assert Gate("decode", captured_kind, 0.9).look(letters, [(each, WHY) for each in letters])


@pytest.mark.kafka
async def test_streams_process_again_what_is_aimed_at_them(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    old, new = (
        captured(case_body("c1", 0, "a", n="old")),
        captured(case_body("c1", 60, "ab", n="new")),
    )
    broken = captured(b"{")
    await send(settings, "captured", [new])
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        await read_until(settings, "deliveries", lambda found: judged(found) == 1)
        await send(settings, "captured", [old, broken])
        await read_until(settings, "deliveries", lambda found: judged(found) == 2)
        await read_until(settings, "dead-letters", lambda found: len(found) == 1)
        typed = decode(old).out
        await send(
            settings,
            "replays",
            [
                replay(old, "decode"),
                replay(Made(typed.value, typed.key, typed.headers), "state"),
                replay(replace(broken, value=case_body("c2", 0, "a", n="repaired")), "decode", 2),
                replay(broken, "decode", 2),
                replay(broken, "state"),
                replay(state_record("c1", 1), "sink:other"),
            ],
        )
        tallies = await read_until(settings, "deliveries", lambda found: judged(found) == 5)
        letters = await read_until(settings, "dead-letters", lambda found: len(found) == 3)
    assert sum_of(tallies) == {"applied": 2, "stale": 3}
    found = await read_all(settings.bootstrap_servers, settings.topic("case-state"))
    held = {key: case.properties["n"] for key, case in states(found).items()}
    assert held == {b"demo/c1": "new", b"demo/c2": "repaired"}
    repaired = next(record for record in found if record.key == b"demo/c2")
    assert header(repaired.headers, "casewire-captured-id") == header(broken.headers, "ce_id")
    assert header(repaired.headers, "ce_time") == header(broken.headers, "ce_time")
    assert header(repaired.headers, "casewire-origin") == "replay"
    assert {letter_key(record.value) for record in letters} == {
        ("decode", "malformed_json", 1),
        ("decode", "malformed_json", 2),
        ("state", "invalid_field", 1),
    }
    sums = await count_sums(settings)
    assert sums.match
    assert (sums.captured, sums.typed, sums.dead) == (3, {"cases": 3}, {})


def letter_key(value: bytes | None) -> tuple[str, Cause, int]:
    letter = DeadLetter.from_json(value or b"")
    return letter.stage, letter.cause, letter.attempts


@pytest.mark.kafka
async def test_a_sink_takes_what_is_aimed_at_it_and_nothing_older(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    sink = ScriptedSink()
    await send(settings, "case-state", [state_record("c1", 5)])
    async with running(sink_app(sink, settings, tmp_path)):
        await read_until(settings, "deliveries", lambda found: ended(found) == 1)
        sink.script.append(lambda messages: ["stale"] if messages[0].version < 5 else None)
        sent: Mapping[str, Made] = {
            "sink:other": state_record("c2", 9),
            "decode": captured(b"{"),
            "sink:test": state_with_schema("c1", 3),
        }
        await send(settings, "replays", [replay(made, to) for to, made in sent.items()])
        ledger = await read_until(settings, "deliveries", lambda found: ended(found) == 2)
        await send(settings, "replays", [replay(state_record("c3", 1), "sink:test")])
        letters = await read_until(settings, "dead-letters", lambda found: len(found) == 1)
    assert sink.rows == {"c1": 5}
    assert sum_of(ledger) == {"written": 1, "stale": 1}
    letter = DeadLetter.from_json(letters[0].value or b"")
    assert letter.original["topic"] == settings.topic("replays")
    assert CaseState.from_json(b64decode(letter.original["value"] or "")) == state("c3", 1)


def state_with_schema(case_id: str, version: int) -> Made:
    record = state_record(case_id, version)
    return replace(record, headers=[*record.headers, ("casewire-schema", b"case-state/1")])
