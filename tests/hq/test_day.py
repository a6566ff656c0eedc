"""A day in HQ's life: forwarders of every kind, while ingress and broker are started anew."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from casewire.hq import Request
from casewire.simulation.delivery import deliver
from casewire.simulation.history import Plan, make_history
from schemas.settings import KafkaSettings
from tests.hq.captured import assert_stored, event_id
from tests.hq.client import Repeater, RepeatRecord
from tests.hq.ingress import Ingress, running_ingress
from tests.hq.logins import Anyone, ApiKey, Basic, Login
from tests.kafka_tools import create_topics
from tests.servers import LocalKafka, running_kafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 20261122
SCALE = 1 / 3600
TABLES = """
[domains.open]
[domains.named]
[domains.keyed]
[credentials.hq]
domains = ["named"]
kind = "basic"
username = "hqé"
{basic}
[credentials.key]
domains = ["keyed"]
kind = "api-key"
header = "X-Api-Key"
{key}
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalKafka]:
    """A broker of our own, since it is killed."""
    with running_kafka(tmp_path / "kafka") as server:
        yield server


@pytest.fixture
async def topics(broker: LocalKafka, anyio_backend: object) -> KafkaSettings:
    await create_topics(broker.bootstrap_servers, "day.", ["captured", "bodies"])
    return KafkaSettings(bootstrap_servers=broker.bootstrap_servers, topic_prefix="day.")


def day(domain: str) -> Sequence[Request]:
    """Payloads of every kind, also broken ones and some twice, in the order of a busy project."""
    plan = Plan(domain=domain, cases=40, changes=160, format="mixed", decidable=True)
    return deliver(make_history(SEED, datetime(2026, 11, 22, tzinfo=UTC), plan), SEED)


def paced(
    repeater: Repeater, payloads: Sequence[Request], over: threading.Event
) -> list[RepeatRecord]:
    """Forward a slice of the day again and again until it is over, all of it at least once."""
    records: list[RepeatRecord] = []
    step = 20
    for start in range(0, len(payloads), step):
        records += repeater.forward(payloads[start : start + step])
    while not over.is_set():
        records += repeater.forward(payloads[:step])
    return records


def test_a_day_with_restarts_ends_with_everything_succeeded_and_stored(
    broker: LocalKafka, topics: KafkaSettings, tmp_path: Path, secrets: Callable[[str, str], str]
) -> None:
    tables = TABLES.format(basic=secrets("basic", "pässword"), key=secrets("key", "Key 0123"))
    ingress = Ingress(tmp_path / "ingress", topics, tables)
    logins: Mapping[str, Login] = {"open": Anyone(), "named": Basic("hqé", "pässword"),
              "keyed": ApiKey("Key 0123", "X-Api-Key")}  # fmt: skip
    over = threading.Event()
    with running_ingress(ingress), ThreadPoolExecutor() as repeaters:
        running = [
            repeaters.submit(
                paced,
                Repeater(
                    url=ingress.address(domain), login=login, generation=generation, scale=SCALE
                ),
                day(domain),
                over,
            )
            for domain, login in logins.items()
            for generation in ("A", "B")
        ]
        try:
            assert ingress.stop() == 0
            ingress.start()
            ingress.wait_until_ready()
            broker.kill()
            time.sleep(2)
            broker.start()
            ingress.wait_until_ready()
            assert ingress.stop() == 0
            ingress.start()
            ingress.wait_until_ready()
        finally:
            over.set()
        records = [record for repeater in running for record in repeater.result()]
        assert Counter(record.state for record in records) == {"Succeeded": len(records)}
        sent = {event_id(record.receipt): record.payload.body for record in records}
        assert len(sent) == len(records), "each payload has an event of its own"
        assert_stored(topics, sent)
