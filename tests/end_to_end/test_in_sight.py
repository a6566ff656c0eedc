"""What a whole run shows of itself: each line by the schema, and nobody's name or number."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import anyio
import jsonschema
import orjson
import psycopg
import pytest

from casewire.alerts.state import saved_state
from schemas.alert import Alert
from schemas.values import Json
from tests.casewire.test_logs import SCHEMA
from tests.end_to_end.tables import sqlite_query
from tests.end_to_end.watched import (
    ALARMING,
    BODIES,
    DATABASE,
    PHONE,
    REFUSED_BY_HTTP,
    REFUSED_BY_SQL,
    REQUEST_ID,
    TRACES,
    Watched,
    case,
    feed,
    headers,
    metrics_of_all,
    post,
    running_watched,
    until,
)
from tests.servers import KafkaServer, PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.kafka, pytest.mark.postgres]

#: PostgreSQL's own words then quote the row, at a row's fault and at the operator's.
TRIGGER = f"""
CREATE FUNCTION demo.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.kind = '{REFUSED_BY_SQL}' THEN
    RAISE EXCEPTION 'not with %', NEW.phone USING ERRCODE = 'data_exception';
  ELSIF NEW.kind = '{ALARMING}' THEN
    RAISE EXCEPTION 'not for %', NEW.case_name USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON demo.case_patient FOR EACH ROW EXECUTE FUNCTION demo.refuse()
"""
#: Of which people are told at least, by stage and cause.
ALERTS = {
    ("decode", "malformed_json"),
    ("decode", "malformed_xml"),
    ("decode", "invalid_field"),
    ("sink:inbox", "rejected_by_target"),
    ("sink:warehouse", "rejected_by_target"),
    ("sink:warehouse", "target_refuses"),
}


@pytest.fixture(scope="module")
async def watched(
    kafka: KafkaServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Watched]:
    """A run in which everything has happened that can go well or wrong."""
    folder = tmp_path_factory.mktemp("watched")
    env = {"CASEWIRE_LOG_LEVEL": "debug", "CASEWIRE_TRACING__SAMPLE_RATIO": "1"}
    async with running_watched(kafka, postgres, folder, env) as system:
        assert (await post(system.address("demo"), case("first"), headers(1)))[0] == 200
        await system.caught_up()
        with psycopg.connect(postgres.url(DATABASE), autocommit=True) as connection:
            connection.execute(TRIGGER)
        await feed(system)
        await system.caught_up()
        for arguments in (
            ("dead-letters", "replay", "--domain", "demo", "--yes"),
            ("replay", "--domain", "demo", "--yes"),
            ("replay", "--domain", "demo", "--sink", "feed", "--yes"),
        ):
            await anyio.run_process(system.command(*arguments), env=system.environment)
        await system.caught_up()
        assert (await post(system.address("demo"), case(ALARMING), headers(1)))[0] == 200
        with anyio.fail_after(60):
            await anyio.to_thread.run_sync(system.processes["sink warehouse"].wait)

        async def told() -> bool:
            return bool(system.mailbox.mails) and await alerted(system) >= ALERTS

        await until(told)
        yield system


async def alerted(system: Watched) -> set[tuple[str, str]]:
    """Return the stages and causes of which people were told."""
    alerts = [Alert.from_json(value) for value in await system.values("alerts")]
    return {(alert.stage, alert.cause) for alert in alerts if alert.status != "reported"}


def told(system: Watched) -> Iterator[tuple[str, Mapping[str, Json]]]:
    for role in system.roles:
        for line in system.lines(role):
            yield role, orjson.loads(line)


async def test_every_line_of_every_role_is_one_of_the_schema(watched: Watched) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    roles = set()
    for role, line in told(watched):
        validator.validate(line)
        assert line["role"] == role.removesuffix(" run").replace(" ", "-")
        roles.add(role)
    assert roles >= {*watched.roles} - {"console"}  # to which nothing happened


async def test_an_event_is_followed_by_the_id_that_the_ingress_answered(watched: Watched) -> None:
    event_id = watched.ids["good"]
    lines = [(role, line) for role, line in told(watched) if line.get("event_id") == event_id]
    passed = {(role, line.get("stage"), line.get("outcome")) for role, line in lines}
    assert passed >= {
        ("ingress", None, None),
        ("streams", "decode", "cases"),
        ("streams", "state", "applied"),
        ("sink tables", "sink:tables", "written"),
        ("sink warehouse", "sink:warehouse", "written"),
        ("sink inbox", "sink:inbox", "written"),
        ("sink lake", "sink:lake", "written"),
        ("sink feed", "sink:feed", "written"),
    }
    assert {line["request_id"] for _, line in lines} == {REQUEST_ID}
    assert {line["domain"] for _, line in lines} == {"demo"}


def found_in(texts: Sequence[bytes | str]) -> list[str]:
    """Return the texts in which somebody's name or number is."""
    plain = [text.decode() if isinstance(text, bytes) else text for text in texts]
    return [text for text in plain if any(trace in text.lower() for trace in TRACES)]


async def test_nobodys_name_or_number_is_in_logs_metrics_or_alerts(watched: Watched) -> None:
    letters = await watched.letters()
    causes = {(letter.stage, letter.cause) for letter in letters}
    assert {
        ("sink:inbox", "rejected_by_target"),
        ("sink:warehouse", "rejected_by_target"),
    } <= causes
    assert len({cause for stage, cause in causes if stage == "decode"}) >= 4
    # They are there, where they belong.
    quoted = {letter.stage for letter in letters if PHONE in letter.target_error}
    assert quoted == {"sink:inbox", "sink:warehouse"}
    rows = sqlite_query(watched.folder / "data" / "sqlite" / "demo.db")(
        "SELECT * FROM case_patient"
    )
    assert {row["phone"] for row in rows} == {PHONE}

    for role in watched.roles:
        assert found_in(watched.lines(role)) == []
    for file in filter(Path.is_file, (watched.folder / "data" / "run").rglob("*")):
        assert found_in([file.read_text()]) == [], file
    metrics = await metrics_of_all(watched)
    assert "casewire_ingress" in metrics
    assert found_in(metrics.splitlines()) == []


async def test_alerts_tell_of_all_that_failed_and_of_nobody(watched: Watched) -> None:
    for topic in ("alerts", "alert-state"):
        assert found_in(await watched.values(topic)) == []
    assert len(saved_state(await watched.records("alert-state"))[0]) >= len(ALERTS)
    mails = [mail.as_string() + str(mail.get_content()) for mail in watched.mailbox.mails]
    assert found_in(mails) == []
    assert any(watched.ids[REFUSED_BY_HTTP] in mail for mail in mails)
    assert len(BODIES) == len(watched.ids)


async def test_a_trace_goes_from_the_post_to_each_row(watched: Watched) -> None:
    event_id = watched.ids["good"]
    spans = watched.collector.of(event_id)
    by_id = {span.span_id: span for span in spans}
    ways = set()
    for span in spans:
        way = [span.name]
        above = by_id.get(span.parent_id)
        while above is not None:
            assert (above.trace_id, above.start <= span.start) == (span.trace_id, True)
            way.append(above.name)
            above = by_id.get(above.parent_id)
        ways.add(tuple(way))
    posted = ("send watched.captured", "POST /api/v1/in/{domain}")
    decoded = ("decode watched.captured", *posted)
    judged = ("state watched.cases", *decoded)
    assert ways >= {
        posted,
        judged,
        ("sink:tables watched.case-state", *judged),
        ("sink:warehouse watched.case-state", *judged),
        ("sink:inbox watched.case-state", *judged),
        ("sink:feed watched.case-state", *judged),
        ("sink:lake watched.cases", *decoded),
    }
    assert {span.service for span in spans} == {
        "casewire-ingress",
        "casewire-streams",
        *(f"casewire-sink-{name}" for name in watched.sinks),
    }
    (posting,) = (span for span in spans if span.name == posted[1])
    assert (posting.kind, posting.parent_id, posting.links) == (2, "", [])
    assert posting.attributes["http.response.status_code"] == 200


async def test_spans_tell_of_failures_and_of_nobody(watched: Watched) -> None:
    failed = {span.name: span.attributes for span in watched.collector.spans if span.failed}
    assert failed["decode watched.captured"]["casewire.outcome"] == "dead"
    refused = [
        span.attributes
        for span in watched.collector.of(watched.ids[REFUSED_BY_HTTP])
        if span.name == "sink:inbox watched.case-state"
    ]
    assert {attributes["error.type"] for attributes in refused} == {"rejected_by_target"}
    assert found_in(watched.collector.texts) == []
    assert {headers["x-collector-key"] for headers in watched.collector.headers} == {"made up"}
