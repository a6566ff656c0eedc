"""What the ingress stored, against what HQ holds for delivered."""

import asyncio
import time
from collections.abc import Mapping

import orjson

from schemas.settings import KafkaSettings
from tests.kafka_tools import ConsumerRecord, read_all

#: How long a spool may take to drain once Kafka is back.
DRAIN_SECONDS = 60


def event_id(receipt: str) -> str:
    """Return the id in a receipt, which has the form of contract §3."""
    value: dict[str, str] = orjson.loads(receipt)
    assert value.keys() == {"id", "stored"}
    assert value["stored"] in ("kafka", "spool")
    return value["id"]


def records(kafka: KafkaSettings) -> dict[str, ConsumerRecord]:
    """Return all captured events by event id."""
    found = asyncio.run(read_all(kafka.bootstrap_servers, kafka.topic("captured")))
    return {(record.key or b"").decode(): record for record in found}


def bodies(kafka: KafkaSettings) -> dict[str, bytes]:
    """Return the bodies of all captured events by event id."""
    return {event: record.value or b"" for event, record in records(kafka).items()}


def assert_stored(kafka: KafkaSettings, expected: Mapping[str, bytes]) -> None:
    """Assert that each event is in Kafka, byte for byte, or comes there from the spool."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        held = bodies(kafka)
        missing = expected.keys() - held.keys()
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert not missing
    assert {event: held[event] for event in expected} == dict(expected)
