"""The connector `kafka`, from records to a real broker that is not ours."""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import orjson
import pytest

from schemas.errors import ConfigError, Rejection, TargetError, TransientError
from schemas.partitioner import partition_of
from schemas.topics import MEBIBYTE
from schemas.values import Json
from sinks.kafka_settings import KafkaSinkSettings
from sinks.kafka_sink import KafkaSink
from streams.delivery import Delivery
from tests.hq.certificates import Certificate, make_certificate
from tests.kafka_tools import ConsumerRecord, create_topic, read_all
from tests.servers import KafkaServer, LocalKafka, free_port, node
from tests.sinks.http_target import forwarded, message
from tests.streams.made import Made, state, state_record

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

SAMPLES = Path(__file__).parents[1] / "fixtures" / "hq"
PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Partner:
    """A subscriber's cluster: its own tools come in by `server`, the sink by SASL over TLS."""

    server: LocalKafka
    address: str
    certificate: Certificate

    def settings(self, topic: str, **more: Json) -> KafkaSinkSettings:
        given: dict[str, Json] = {
            "bootstrap_servers": self.address,
            "topic": topic,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "user": "casewire",
            "password": "right",
            "tls_authorities": str(self.certificate.authority),
            **more,
        }
        return KafkaSinkSettings(**given)


@pytest.fixture(scope="module")
def partner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Partner]:
    folder = tmp_path_factory.mktemp("partner")
    certificate = make_certificate(folder)
    both = folder / "both.pem"
    both.write_text(certificate.key.read_text() + certificate.certificate.read_text())
    port = free_port()
    plain = node(folder / "kafka", {})
    listeners = f"PLAINTEXT://127.0.0.1:{plain.port},SASL_SSL://127.0.0.1:{port}"
    login = "org.apache.kafka.common.security.plain.PlainLoginModule"
    more = {
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{plain.controller_port}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": (
            "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": (
            f'{login} required user_casewire="right";'
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(both),
    }
    server = LocalKafka(replace(plain, more=more))
    server.start()
    try:
        yield Partner(server, f"127.0.0.1:{port}", certificate)
    finally:
        server.kill()


async def make_topic(partner: Partner, name: str, **config: str) -> None:
    await create_topic(partner.server.bootstrap_servers, name, PARTITIONS, **config)


@pytest.fixture
async def topic(partner: Partner, prefix: str) -> str:
    """A topic of the partner's that no other test uses."""
    name = f"{prefix}patients"
    await make_topic(partner, name)
    return name


async def records_of(partner: Partner, topic: str) -> Sequence[ConsumerRecord]:
    return await read_all(partner.server.bootstrap_servers, topic)


@asynccontextmanager
async def sink_to(settings: KafkaSinkSettings, **more: float) -> AsyncIterator[KafkaSink]:
    sink = KafkaSink(settings, **more)
    try:
        yield sink
    finally:
        await sink.close()


async def test_a_subscriber_on_another_cluster_gets_what_he_may_see(
    partner: Partner, topic: str
) -> None:
    body = (SAMPLES / "case_json_current_open.json").read_bytes()
    sent = [("server-modified-on", b"2026-01-01"), ("x-forwarded-for", b"192.0.2.1"),
            ("user-agent", b"python-requests")]  # fmt: skip
    _, record = forwarded(body, *sent)
    whole = orjson.loads(record.value or b"")
    name, *others = whole["properties"]
    settings = partner.settings(
        topic, drop=["xform_ids", f"properties.{others[0]}"], hash=[f"properties.{name}"],
        hash_key="0123456789abcdef",
    )  # fmt: skip
    async with sink_to(settings) as sink:
        assert (await Delivery("partner", sink).deliver([record])).ends == ["written"]
    (found,) = await records_of(partner, topic)
    value = orjson.loads(found.value or b"")
    assert len(value["properties"].pop(name)) == 64
    del whole["properties"][name], whole["properties"][others[0]], whole["xform_ids"]
    assert value == whole
    assert found.key == record.key
    assert found.partition == partition_of(record.key or b"", PARTITIONS)
    headers = dict(found.headers)
    kept = ("ce_id", "ce_type", "ce_time", "ce_subject", "casewire-version", "casewire-domain",
            "server-modified-on", "content-type")  # fmt: skip
    assert {name: headers[name] for name in kept} == {
        name: dict(record.headers)[name] for name in kept
    }
    leaks = {"x-forwarded-for", "user-agent", "casewire-path", "casewire-query", "casewire-writer"}
    assert not leaks & headers.keys()


async def test_a_time_that_is_hidden_is_not_told_by_a_header(partner: Partner, topic: str) -> None:
    body = (SAMPLES / "case_json_current_open.json").read_bytes()
    _, record = forwarded(body, ("server-modified-on", b"2026-01-01"))
    async with sink_to(partner.settings(topic, drop=["server_date_modified"])) as sink:
        await Delivery("partner", sink).deliver([record])
    (found,) = await records_of(partner, topic)
    assert "server-modified-on" not in dict(found.headers)


async def test_what_is_null_stays_null_so_that_the_topic_may_be_compacted(
    partner: Partner, topic: str
) -> None:
    null = Made(None, b"demo/a", [("casewire-version", b"9"), ("ce_id", b"a/tombstone/0")])
    async with sink_to(partner.settings(topic)) as sink:
        await Delivery("partner", sink).deliver([state_record("a", 1)])
        await Delivery("partner", sink).deliver([null])
    first, last = await records_of(partner, topic)
    assert first.value is not None
    assert (last.key, last.value) == (b"demo/a", None)
    assert dict(last.headers)["casewire-version"] == b"9"


async def test_events_of_one_case_stay_in_order(partner: Partner, topic: str) -> None:
    keys = "abcdefgh" * 50
    events = [message(key, number) for number, key in enumerate(keys)]
    async with sink_to(partner.settings(topic)) as sink:
        assert await sink.write(events) == ["written"] * len(keys)
    assert by_key(await records_of(partner, topic)) == {
        key: [f"{key}-{n}" for n, other in enumerate(keys) if other == key] for key in set(keys)
    }


def by_key(records: Sequence[ConsumerRecord]) -> Mapping[str, Sequence[str]]:
    """Return the events of each case; one that follows itself, sent twice, counts once."""
    found = defaultdict(list)
    for record in records:
        event = dict(record.headers)["ce_id"].decode()
        found[event.partition("-")[0]].append(event)
    return found


async def test_a_subscriber_gets_his_own_names_and_a_clash_of_two_is_a_dead_letter(
    partner: Partner, topic: str
) -> None:
    settings = partner.settings(
        topic, rename={"properties.dob": "born"}, drop=["properties.secret"]
    )
    events = [
        message("a", dob="1990", secret="x"),
        message("b", dob="1990", born="1991"),
        message("c", dob=""),
    ]
    async with sink_to(settings) as sink:
        first, second, third = await sink.write(events)
    assert first == third == "written"
    assert isinstance(second, Rejection)
    assert (second.cause, second.path) == ("mapping_failed", "properties.born")
    values = [orjson.loads(found.value or b"") for found in await records_of(partner, topic)]
    held = {value["case_id"]: value["properties"] for value in values}
    assert held == {
        "a": {"case_type": "patient", "born": "1990"},
        "c": {"case_type": "patient", "born": ""},
    }


async def test_a_record_that_is_too_large_is_a_dead_letter_and_the_others_are_sent(
    partner: Partner, prefix: str
) -> None:
    name = f"{prefix}small"
    await make_topic(partner, name, **{"max.message.bytes": "20000"})
    events = [
        message(key, n, note="x" * (30_000 if key == "b" else 10)) for n, key in enumerate("abc")
    ]
    async with sink_to(partner.settings(name)) as sink:
        first, second, third = await sink.write(events)
        assert first == third == "written"
        assert isinstance(second, Rejection)
        assert second.cause == "too_large"
        assert await sink.write([message("d")]) == ["written"], "the producer is as good as new"
    assert set(by_key(await records_of(partner, name))) == {"a", "c", "d"}


async def test_a_limit_that_has_become_lower_is_learnt(partner: Partner, prefix: str) -> None:
    name = f"{prefix}shrinks"
    await make_topic(partner, name, **{"max.message.bytes": str(2 * MEBIBYTE)})
    async with sink_to(partner.settings(name)) as sink:
        await sink.open()
        sink._largest = 16 * MEBIBYTE
        noise = os.urandom(3 * MEBIBYTE).hex()  # does not get smaller when it is compressed
        (result,) = await sink.write([message("a", note=noise)])
        assert isinstance(result, Rejection)
        assert await sink.write([message("b")]) == ["written"]


async def test_the_topic_must_exist(partner: Partner, kafka: KafkaServer, prefix: str) -> None:
    for settings in (
        partner.settings(f"{prefix}missing"),
        KafkaSinkSettings(bootstrap_servers=kafka.bootstrap_servers, topic=f"{prefix}missing"),
    ):
        async with sink_to(settings) as sink:
            with pytest.raises(TargetError, match="have it created"):
                await sink.open()


async def test_who_is_not_let_in_is_told_why(partner: Partner, topic: str, tmp_path: Path) -> None:
    for wrong, text in (
        ({"password": "wrong"}, "does not let the sink in"),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "does not let the sink in"),
        ({"tls_authorities": str(make_certificate(tmp_path).authority)}, "certificate"),
    ):
        async with sink_to(partner.settings(topic, **wrong)) as sink:
            with pytest.raises(TargetError, match=text) as told:
                await sink.open()
            assert "wrong" not in str(told.value)


async def test_a_broker_that_is_not_there_is_waited_for() -> None:
    settings = KafkaSinkSettings(bootstrap_servers=f"127.0.0.1:{free_port()}", topic="t")
    async with sink_to(settings) as sink:
        with pytest.raises(TransientError, match="does not take records"):
            await sink.write([message("a")])


async def test_a_broker_that_is_killed_in_mid_batch_gets_everything_in_order(
    partner: Partner, topic: str
) -> None:
    keys = "abcdefgh" * 400
    records = [
        Made(
            state(key, n + 1).to_json(),
            f"demo/{key}".encode(),
            [("ce_id", f"{key}-{n:05}".encode())],
            "casewire.cases",
            offset=n,
        )
        for n, key in enumerate(keys)
    ]

    async def start_again(_seconds: float) -> None:
        if partner.server.process is None:
            await asyncio.to_thread(partner.server.start)

    async with sink_to(partner.settings(topic), write_seconds=2) as sink:
        await sink.write([message("z")])
        work = asyncio.ensure_future(Delivery("x", sink, sleep=start_again).deliver(records))
        with anyio.fail_after(60):
            await asyncio.sleep(0)  # the batch is on its way, or some of it
            await asyncio.to_thread(partner.server.kill)
            assert (await work).ends == ["written"] * len(keys)
    found = by_key(await records_of(partner, topic))
    for key in set(keys):
        wanted = [f"{key}-{n:05}" for n, other in enumerate(keys) if other == key]
        assert sorted(set(found[key])) == wanted
        firsts = list(dict.fromkeys(found[key]))
        assert firsts == wanted, "a batch may come twice, but nothing overtakes what is before it"


async def test_a_stop_in_mid_batch_leaves_nothing_out_that_a_repeat_brings(
    partner: Partner, topic: str
) -> None:
    events = [message(f"c{n}", n) for n in range(3000)]
    async with sink_to(partner.settings(topic)) as sink:
        await sink.open()
        write = asyncio.ensure_future(sink.write(events))
        await asyncio.sleep(0)
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
    async with sink_to(partner.settings(topic)) as sink:
        assert await sink.write(events) == ["written"] * len(events)
    assert len(by_key(await records_of(partner, topic))) == len(events)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"bootstrap_servers": "kafka"}, "bootstrap_servers: is no list of brokers"),
        ({"bootstrap_servers": "u:hidden@kafka:9092"}, "bootstrap_servers: is no list of brokers"),
        ({"topic": "a b"}, "topic: is no name"),
        ({"topic": "casewire.cases"}, "topic: is one of Casewire's own"),
        ({"drop": ["a..b"]}, "drop: 'a..b' is no path"),
        ({"rename": {"properties.dob": "a.b"}}, "rename: 'properties.dob' gets no name"),
        ({"hash": ["properties.phone"]}, "hash_key: missing"),
        ({"security_protocol": "SASL_SSL", "user": "u"}, "password: missing"),
        ({"password": "hidden"}, "password: is not used by PLAINTEXT"),
        ({"tls_authorities": "/x"}, "tls_authorities: is not used by PLAINTEXT"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(
    given: dict[str, Json], problem: str
) -> None:
    settings = KafkaSinkSettings(**{"bootstrap_servers": "k:9092", "topic": "t", **given})
    found = list(settings.problems())
    assert [text[: len(problem)] for text in found] == [problem]
    assert "hidden" not in found[0]


def test_a_certificate_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    settings = KafkaSinkSettings(
        bootstrap_servers="k:9092", topic="t", security_protocol="SSL",
        tls_authorities=str(tmp_path / "missing"),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="cannot be read as PEM"):
        KafkaSink(settings)
