from collections.abc import Sequence
from types import SimpleNamespace

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from anyio import to_thread

from casewire.cli import run
from casewire.tail import Event, Filter, topic_named
from casewire.topics import create_topics
from schemas.envelope import Headers
from schemas.errors import ConfigError
from schemas.settings import KafkaSettings
from tests.servers import KafkaServer, free_port

pytestmark = pytest.mark.anyio


def headers(kind: str, subject: str, domain: str = "demo") -> Headers:
    named = {
        "ce_time": "2026-01-01T00:00:00.000000Z",
        "ce_type": kind,
        "ce_subject": subject,
        "casewire-domain": domain,
    }
    return [(name, text.encode()) for name, text in named.items()]


def event(value: bytes | None, given: Headers = (), key: bytes | None = b"demo/c1") -> Event:
    record = SimpleNamespace(
        topic="casewire.case-state", partition=0, offset=7, key=key, value=value, headers=given
    )
    return Event.of(record)


STATE = event(
    b'{"case_id": "c1", "xform_ids": ["f1"], "note": null}',
    headers("org.commcare.case.state", "c1"),
)


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        (Filter(), True),
        (Filter(domain="demo"), True),
        (Filter(domain="other"), False),
        (Filter(type="case.state"), True),
        (Filter(type="org.commcare.case.state"), True),
        (Filter(type="state"), False),
        (Filter(case="c1"), True),
        (Filter(case="c2"), False),
        (Filter(form="f1"), True),
        (Filter(form="f2"), False),
        (Filter(domain="demo", case="c1", type="case.snapshot"), False),
    ],
)
def test_a_filter_passes_what_fits_all_of_it(wanted: Filter, *, passes: bool) -> None:
    assert wanted.passes(STATE) is passes


def test_ids_are_found_in_values_of_every_kind() -> None:
    assert Filter(case="c9").passes(event(b"<case case_id='c9'/>", key=b"event"))
    assert Filter(form="f9").passes(event(b'{"id": "f9"}', key=None))
    assert Filter(case="c9").passes(event(b'{"case_ids": ["c9"]}', key=None))
    assert not Filter(case="c9").passes(event(b'{"xform_ids": null}', key=None))
    assert not Filter(case="c9").passes(event(None))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "null"), (b"<a/>", "<a/>"), (b"\xff", '"base64": "/w=="'), (b'{"a":1}', '"a": 1')],
)
def test_any_value_can_be_shown(value: bytes | None, shown: str) -> None:
    assert shown in event(value).to_text()


def test_a_topic_is_named_short_or_in_full() -> None:
    kafka = KafkaSettings()
    assert topic_named(kafka, "cases") == topic_named(kafka, "casewire.cases") == "casewire.cases"
    with pytest.raises(ConfigError, match="did you mean case-state"):
        topic_named(kafka, "case-states")


async def produce(kafka: KafkaSettings, topic: str, values: Sequence[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    for number, value in enumerate(values):
        given = headers("org.commcare.case.snapshot", f"c{number}")
        await producer.send_and_wait(kafka.topic(topic), value, b"demo/c", headers=given)
    await producer.stop()


async def test_the_command_prints_what_was_asked_for_and_stops(
    kafka: KafkaServer, prefix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=1
    )
    await create_topics(settings)
    await produce(settings, "cases", [b'{"case_id": "c0"}', b'{"case_id": "c1"}', b"x"])
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "CASEWIRE_KAFKA__TOPIC_PREFIX": prefix,
    }
    command = ["tail", "cases", "--since-beginning", "--json", "-n", "1", "--case", "c1"]
    assert await to_thread.run_sync(run, command, env) == 0
    (line,) = capfd.readouterr().out.splitlines()
    printed = orjson.loads(line)
    assert printed["value"] == {"case_id": "c1"}
    assert printed["type"] == "org.commcare.case.snapshot"
    assert ["casewire-domain", "demo"] in printed["headers"]


def test_a_missing_topic_and_a_missing_broker_are_one_sentence(
    kafka: KafkaServer, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "CASEWIRE_KAFKA__TOPIC_PREFIX": prefix,
    }
    assert run(["tail", "cases"], env) == 1
    assert f"topic {prefix}cases is missing" in capsys.readouterr().err
    assert run(["tail", "cases"], {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}) == 1
    assert "no Kafka broker answers" in capsys.readouterr().err
