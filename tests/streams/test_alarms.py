"""A sink's worker says on `casewire.alerts` what its target does to it."""

import uuid
from pathlib import Path

import psycopg
import pytest

from schemas.alert import Alert
from schemas.dead_letter import DeadLetter
from schemas.errors import TargetError, TransientError
from schemas.settings import KafkaSettings
from sinks.postgres import PostgresSink
from sinks.sql_settings import SqlSettings
from streams.app import create_sink_app
from streams.delivery import Delivery
from tests.kafka_tools import read_all
from tests.servers import PostgresServer
from tests.streams.made import state_record
from tests.streams.test_delivery import ScriptedSink
from tests.streams.test_worker import (
    SETTINGS,
    ending,
    read_until,
    running,
    send,
    settings as settings,  # noqa: PLC0414 - a fixture
    sink_app,
)

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

WORDS = "permission denied for Amina"


async def test_a_sink_whose_target_refuses_says_so_before_it_ends(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    await send(settings, "case-state", [state_record("c1", 1)])
    app = sink_app(
        ScriptedSink(lambda _: TargetError("it refuses", target_error=WORDS)), settings, tmp_path
    )
    async with ending(app, TargetError):
        pass
    (record,) = await read_all(settings.bootstrap_servers, settings.topic("alerts"))
    alert = Alert.from_json(record.value or b"")
    assert (alert.status, alert.cause, alert.domain) == ("reported", "target_refuses", "")
    assert WORDS.encode() not in (record.value or b"")


async def test_a_sink_whose_target_is_down_for_long_says_so_and_goes_on(
    settings: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.delivery.TELL_SECONDS", 0.1)
    await send(settings, "case-state", [state_record("c1", 1)])
    sink = ScriptedSink(*[lambda _: TransientError("it is down", target_error=WORDS)] * 2)
    async with running(sink_app(sink, settings, tmp_path)):
        alerts = await read_until(settings, "alerts", lambda found: len(found) >= 1)
        await read_until(settings, "deliveries", lambda found: len(found) == 1)
    assert Alert.from_json(alerts[0].value or b"").cause == "target_unavailable"
    assert WORDS.encode() not in (alerts[0].value or b"")
    assert sink.rows == {"c1": 1}


#: A database that quotes what it is given, in whatever it says.
QUOTING = """
CREATE TABLE says (code text);
CREATE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'not with %', NEW.case_name
    USING ERRCODE = (SELECT code FROM says), DETAIL = NEW.case_name, HINT = NEW.case_name;
END $$;
CREATE TRIGGER quoting BEFORE INSERT ON "demo".case_patient FOR EACH ROW EXECUTE FUNCTION quote();
"""


@pytest.mark.postgres
async def test_no_value_that_a_target_quotes_gets_into_a_log_or_an_alert(
    settings: KafkaSettings,
    tmp_path: Path,
    postgres: PostgresServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.delivery.TELL_SECONDS", 0.1)
    name = f"q{uuid.uuid4().hex[:10]}"
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    delivery = Delivery("test", PostgresSink(postgres.url(name)))
    app = create_sink_app(delivery, SqlSettings(), settings, SETTINGS, tmp_path)
    with psycopg.connect(postgres.url(name), autocommit=True) as database:

        def says(code: str) -> None:
            database.execute("DELETE FROM says")
            database.execute("INSERT INTO says VALUES (%s)", [code])

        async with ending(app, TargetError):
            await send(settings, "case-state", [state_record("c1", 1, case_name="Ada")])
            await read_until(settings, "deliveries", lambda found: len(found) == 1)
            database.execute(QUOTING)
            says("40001")
            await send(settings, "case-state", [state_record("c2", 1, case_name=WORDS)])
            await read_until(settings, "alerts", lambda found: len(found) >= 1)
            says("23514")
            letters = await read_until(settings, "dead-letters", lambda found: len(found) == 1)
            says("42501")
            await send(settings, "case-state", [state_record("c3", 1, case_name=WORDS)])
    await delivery.close()
    letter = DeadLetter.from_json(letters[0].value or b"")
    assert letter.target_error == f"not with {WORDS}"
    alerts = await read_all(settings.bootstrap_servers, settings.topic("alerts"))
    causes = [Alert.from_json(record.value or b"").cause for record in alerts]
    assert set(causes) == {"target_unavailable", "target_refuses"}
    written, errors = capfd.readouterr()
    shown = [letter.explanation, str(app.crash_reason), caplog.text, written, errors]
    shown += [str(record.value) + str(record.headers) for record in alerts]
    assert "42501" in str(app.crash_reason)
    assert [text for text in shown if "Amina" in text] == []
