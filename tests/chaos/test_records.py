"""Records that hurt: too large, broken, and from clocks that jump. Nothing behind them waits."""

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from casewire.sums import count_sums
from schemas.dead_letter import DeadLetter
from schemas.settings import KafkaSettings
from schemas.topics import LARGE_RECORD, MEBIBYTE, TOPICS
from streams.app import create_streams_app
from tests.kafka_tools import create_topics, read_all
from tests.servers import LocalKafka
from tests.streams.made import Made, captured
from tests.streams.test_worker import (
    SETTINGS,
    case_body,
    form_body,
    judged,
    read_until,
    running,
    states,
)

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
async def settings(kafka: LocalKafka, prefix: str) -> KafkaSettings:
    """One partition: whatever stands still holds up everything."""
    await create_topics(kafka.bootstrap_servers, prefix, TOPICS, partitions=1)
    return KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=1
    )


async def capture(settings: KafkaSettings, records: Sequence[Made]) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, max_request_size=LARGE_RECORD
    ) as producer:
        for each in records:
            await producer.send_and_wait(
                settings.topic("captured"), each.value, each.key, headers=list(each.headers)
            )


async def causes(settings: KafkaSettings) -> Counter[tuple[str, str]]:
    found = await read_all(settings.bootstrap_servers, settings.topic("dead-letters"))
    letters = [DeadLetter.from_json(record.value or b"") for record in found]
    return Counter((letter.stage, letter.cause) for letter in letters)


def growing() -> bytes:
    """Return the XML of a form that is twice as long in JSON."""
    story = '"' * 5 * MEBIBYTE
    meta = "<meta><instanceID>f1</instanceID></meta>"
    return f"<data><story>{story}</story>{meta}</data>".encode()


def long_name() -> bytes:
    """Return a case with an index that is none, whose path in the case is long."""
    case = orjson.loads(case_body("c1", 0, "a"))
    return orjson.dumps({**case, "indices": {"x" * 7 * MEBIBYTE: "none"}})


def story(form_id: str, name: str) -> bytes:
    block = {"create": {"case_type": "patient"}, "update": {name: "x" * 5 * MEBIBYTE}}
    return form_body(form_id, 0, block)


async def test_what_is_too_large_becomes_a_dead_letter_and_holds_up_nothing(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    bodies = [growing(), form_body("f" * 6 * MEBIBYTE, 0, {"create": {}}), long_name()]
    bodies += [story("f2", "one"), story("f3", "two")]
    good = [case_body(f"good{i}", 60, "ab", n=str(i)) for i in range(len(bodies) + 1)]
    records = [captured(good[0])]
    for large, behind in zip(bodies, good[1:], strict=True):
        records += [captured(large), captured(behind)]
    await capture(settings, records)
    # The good ones; both stories' forms, each with its case block.
    expected = len(good) + 2 + 2
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        await read_until(settings, "deliveries", lambda found: judged(found) == expected)
    assert await causes(settings) == {
        ("decode", "too_large"): 1,
        ("decode", "invalid_field"): 2,
        ("state", "too_large"): 1,
    }
    found = states(await read_all(settings.bootstrap_servers, settings.topic("case-state")))
    held = {f"demo/good{i}".encode() for i in range(len(good))}
    assert found.keys() == {*held, b"demo/c1"}
    assert "one" in found[b"demo/c1"].properties
    assert (await count_sums(settings)).match


async def test_a_dead_letter_of_a_large_record_says_where_it_lies(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    small = b'{"case_id": "' + b"x" * 1000
    await capture(settings, [captured(small + b"x" * MEBIBYTE), captured(small)])
    async with running(create_streams_app(settings, SETTINGS, tmp_path)):
        found = await read_until(settings, "dead-letters", lambda found: len(found) == 2)
    originals = [DeadLetter.from_json(record.value or b"").original for record in found]
    assert [each["offset"] for each in originals] == [0, 1]
    assert originals[0]["value"] is None
    assert base64.b64decode(originals[1]["value"] or "") == small
