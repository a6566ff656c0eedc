"""A sink's worker says on `casewire.alerts` what its target does to it."""

from pathlib import Path

import anyio
import pytest

from schemas.alert import Alert
from schemas.errors import TargetError, TransientError
from schemas.settings import KafkaSettings
from streams.app import stop_app
from tests.kafka_tools import read_all
from tests.streams.made import state_record
from tests.streams.test_delivery import ScriptedSink
from tests.streams.test_worker import (
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
    app = sink_app(ScriptedSink(lambda _: TargetError(WORDS)), settings, tmp_path)
    await app.start()
    with anyio.fail_after(60):
        await app.wait_until_stopped()
    with pytest.raises(TargetError):
        await stop_app(app)
    (record,) = await read_all(settings.bootstrap_servers, settings.topic("alerts"))
    alert = Alert.from_json(record.value or b"")
    assert (alert.status, alert.cause, alert.domain) == ("reported", "target_refuses", "")
    assert WORDS.encode() not in (record.value or b"")


async def test_a_sink_whose_target_is_down_for_long_says_so_and_goes_on(
    settings: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.delivery.TELL_SECONDS", 0.1)
    await send(settings, "case-state", [state_record("c1", 1)])
    sink = ScriptedSink(*[lambda _: TransientError(WORDS)] * 2)
    async with running(sink_app(sink, settings, tmp_path)):
        alerts = await read_until(settings, "alerts", lambda found: len(found) >= 1)
        await read_until(settings, "deliveries", lambda found: len(found) == 1)
    assert Alert.from_json(alerts[0].value or b"").cause == "target_unavailable"
    assert sink.rows == {"c1": 1}
