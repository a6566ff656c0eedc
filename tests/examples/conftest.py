import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pytest

from schemas.settings import KafkaSettings
from schemas.topics import MEBIBYTE, TOPICS
from streams.app import create_streams_app
from tests.examples.samples import REFERRAL
from tests.kafka_tools import ConsumerRecord, create_topics, read_all
from tests.schemas.captures import HQ, JSON, XML
from tests.schemas.test_fixtures import EVENTS
from tests.servers import KafkaServer
from tests.streams.made import Made, captured
from tests.streams.test_worker import (
    SETTINGS,
    case_body,
    claimed,
    events,
    judged,
    read_until,
    running,
    send,
)

KEY: Final = "demo/c1"
#: A case whose last state is null.
GONE: Final = "demo/c3"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Topics that the streams worker has written to. `newest` is the state of the case `KEY`."""

    kafka: KafkaSettings
    newest: bytes


@pytest.fixture(scope="package")
async def cluster(kafka: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers,
        topic_prefix=f"t{uuid.uuid4().hex[:10]}.",
        partitions=4,
    )
    await create_topics(settings.bootstrap_servers, settings.topic_prefix, TOPICS, partitions=4)
    early, late = snapshots("a"), [*snapshots("ab"), *snapshots("abc")]
    sent = [*early, *map(sample, EVENTS), *others(), *late]
    large = claimed(case_body("large", 0, "a") + b" " * MEBIBYTE)
    async with running(create_streams_app(settings, SETTINGS, tmp_path_factory.mktemp("streams"))):
        await send(settings, "captured", early)
        states = await read_until(settings, "case-state", has_key)
        first = next(record for record in states if record.key == KEY.encode())
        await send(settings, "captured", sent[len(early) :])
        for topic, record in large:
            await send(settings, topic, [record])
        done = events(sent) + 1
        await read_until(settings, "deliveries", lambda found: judged(found) == done)
    states = await read_all(settings.bootstrap_servers, settings.topic("case-state"))
    newest = [record for record in states if record.key == KEY.encode()][-1]
    # What a worker does that was frozen, and woken after another had taken its place.
    await send(settings, "case-state", [Made(first.value, first.key, first.headers)])
    await send(settings, "case-state", [Made(None, first.key, first.headers)])
    last = [record for record in states if record.key == GONE.encode()][-1]
    (name, version), *others_of_it = last.headers
    null = Made(None, last.key, [(name, b"%d" % (int(version) + 1)), *others_of_it])
    await send(settings, "case-state", [null, Made(last.value, last.key, last.headers)])
    return Cluster(settings, newest.value or b"")


def has_key(records: Sequence[ConsumerRecord]) -> bool:
    return any(record.key == KEY.encode() for record in records)


def snapshots(forms: str) -> Sequence[Made]:
    """Return snapshots of three cases, each a minute later for each form."""
    trap = ("x-trap", b"1\t,casewire-version=9999999999999999")
    return [
        captured(
            case_body(case_id, 60 * len(forms), forms, case_name="Zoë", n=forms), headers=[trap]
        )
        for case_id in ("c1", "c2", "c3")
    ]


def sample(name: str) -> Made:
    content_type = JSON if name.endswith(".json") else XML
    return captured((HQ / name).read_bytes(), headers=[("content-type", content_type.encode())])


def others() -> Sequence[Made]:
    """Return what HQ's samples lack."""
    return [
        captured(b"<broken"),
        captured(b'{"arrivals": 3}', label="arrivals"),
        captured(REFERRAL),
    ]
