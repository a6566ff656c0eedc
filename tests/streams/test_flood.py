"""The limit on dead-lettering: a fault of ours stops the worker, nonsense that is sent does not."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anyio
import pytest
from hypothesis import given, strategies as st

from schemas.alert import Alert
from schemas.errors import Cause, RejectedRowsError, Rejection
from schemas.settings import KafkaSettings
from sinks.base import Message
from streams.app import create_streams_app
from streams.flood import LEAST, SEVERAL, WINDOW, FloodError, Gate, captured_kind, failing
from streams.settings import StreamsSettings
from tests.kafka_tools import ConsumerRecord, read_all
from tests.streams.made import Made, captured, state_record
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

pytestmark = pytest.mark.anyio

LIMIT = 0.9
BAD: list[Cause | None] = ["malformed_xml"] * WINDOW
BUG: list[Cause | None] = ["unexpected"] * WINDOW
GOOD: list[Cause | None] = [None] * WINDOW


@pytest.mark.parametrize(
    ("ends", "stops"),
    [
        ({"a": BUG}, True),
        ({"a": BAD}, False),  # one that sends nothing but nonsense
        ({"a": BAD, "b": BAD}, False),
        ({"a": BAD, "b": BAD, "c": BAD}, True),  # not at once
        ({"a": BAD, "b": BAD, "c": BUG}, True),
        ({"a": BUG, "b": GOOD}, False),
        ({"a": BUG, "b": [None]}, False),
        ({"a": BUG, "b": ["malformed_xml"]}, True),  # one event of a project space says nothing
        ({"a": BUG[: LEAST - 1]}, False),
        ({"a": BUG[: LEAST - 1], "b": BUG[:10]}, True),
        ({"a": [*BUG[:90], *GOOD[:10]]}, True),
        ({"a": [*BUG[:89], *GOOD[:11]]}, False),
        ({"a": [*BUG[:50], *BAD[:50]]}, False),
        ({}, False),
    ],
)
def test_nearly_everything_fails(ends: Mapping[str, Sequence[Cause | None]], stops: bool) -> None:
    assert bool(failing(ends, LIMIT)) == stops
    assert not failing(ends, 1)


ends = st.lists(
    st.sampled_from([None, "unexpected", "malformed_json", "invalid_field"]), max_size=WINDOW
)


@given(st.dictionaries(st.sampled_from("abcdefgh"), ends), st.sampled_from([0.1, 0.5, 0.9, 0.99]))
def test_who_passes_is_never_stopped_by_who_fails(
    windows: dict[str, list[Cause | None]], limit: float
) -> None:
    found = failing(windows, limit)
    passing = [d for d in windows if windows[d].count(None) > (1 - limit) * len(windows[d])]
    assert not set(found) & set(passing)
    if found:
        assert len(passing) <= len(found) * (1 / limit - 1) + 1e-9
        assert sum(cause is not None for d in found for cause in windows[d]) >= LEAST
        assert len(found) >= SEVERAL or all("unexpected" in windows[d] for d in found)


def test_a_kind_of_request_is_told_by_what_hq_says_of_it_and_not_by_its_body() -> None:
    sent: Sequence[tuple[bytes, Sequence[tuple[str, bytes]], str]] = (
        (b"<broken", [("server-modified-on", b"x")], "cases (XML)"),
        (b"{broken", [("received-on", b"x")], "forms (JSON)"),
        (b"{}", [], "other events"),
    )
    assert [captured_kind(captured(body, headers=headers)) for body, headers, _ in sent] == [
        kind for _, _, kind in sent
    ]


def test_only_the_latest_events_count_and_each_kind_by_itself() -> None:
    gate = Gate("decode", captured_kind, LIMIT)
    why = Rejection("unexpected", "Casewire failed on it")
    form = [("received-on", b"x")]
    cases = [captured(b"{}", offset=n, headers=[("server-modified-on", b"x")]) for n in range(99)]
    forms = [captured(b"{}", offset=100 + n, headers=form) for n in range(2 * WINDOW)]
    assert gate.look([*cases, *forms], []) is None
    assert gate.look(forms[: LEAST - 1], [(record, why) for record in forms[: LEAST - 1]]) is None
    flood = gate.look([*forms, *cases], [(record, why) for record in forms])
    assert flood is not None
    assert (flood.kind, flood.failed, flood.seen) == ("forms (JSON)", WINDOW, WINDOW)
    assert flood.captured_ids == [dict(each.headers)["ce_id"].decode() for each in forms[:10]]


def of_domains(make: Callable[[int], Made], count: int) -> list[Made]:
    """Make records of three project spaces."""
    records = []
    for number in range(count):
        record = make(number)
        domain = f"space-{number % 3}".encode()
        headers = [
            (name, domain if name == "casewire-domain" else value) for name, value in record.headers
        ]
        _, slash, subject = (record.key or b"").partition(b"/")
        key = domain + slash + subject if slash else record.key
        records.append(Made(record.value, key, headers))
    return records


@pytest.mark.kafka
async def test_a_worker_stops_before_it_empties_a_topic_into_the_dead_letters(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    await send(settings, "captured", of_domains(lambda _: captured(b"<broken"), 3 * LEAST))
    app = create_streams_app(settings, SETTINGS, tmp_path / "1")
    async with ending(app, FloodError, "dead_letter_limit = 1"):
        pass
    raised = await read_all(settings.bootstrap_servers, settings.topic("alerts"))
    alert = Alert.from_json(raised[0].value or b"")
    assert (alert.stage, alert.cause, alert.domain) == ("decode", "malformed_xml", "")
    assert ("ce_type", b"casewire.alert") in raised[0].headers
    assert raised[0].key == alert.group.encode()
    buried = await read_all(settings.bootstrap_servers, settings.topic("dead-letters"))
    assert ids(buried) < 2 * LEAST
    nevertheless = StreamsSettings(session_timeout_seconds=6, dead_letter_limit=1)
    async with running(create_streams_app(settings, nevertheless, tmp_path / "2")):
        await read_until(settings, "dead-letters", lambda found: ids(found) == 3 * LEAST)


def ids(records: Sequence[ConsumerRecord]) -> int:
    return len({record.key for record in records})


def refuse_all(messages: Sequence[Message]) -> Exception:
    why = Rejection("rejected_by_target", "a constraint refuses it")
    return RejectedRowsError(dict.fromkeys(range(len(messages)), why))


@pytest.mark.kafka
async def test_a_sink_goes_on_where_it_was_when_what_refused_everything_is_mended(
    settings: KafkaSettings, tmp_path: Path
) -> None:
    records = of_domains(lambda n: state_record(f"c{n}", n + 1), 3 * LEAST)
    await send(settings, "case-state", records)
    app = sink_app(ScriptedSink(*[refuse_all] * 99), settings, tmp_path)
    async with ending(app, FloodError):
        pass
    buried = await read_all(settings.bootstrap_servers, settings.topic("dead-letters"))
    assert ids(buried) < 2 * LEAST
    mended = ScriptedSink()
    async with running(sink_app(mended, settings, tmp_path)):
        with anyio.fail_after(60):
            while True:
                if len(mended.rows) >= 3 * LEAST - ids(buried):
                    break
                await anyio.sleep(0.05)
