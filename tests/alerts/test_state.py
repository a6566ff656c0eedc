"""What records say, and that the next process knows what the last one knew."""

from collections.abc import Sequence

import msgspec
import orjson

from casewire.alerts.reports import Target, short_name
from casewire.alerts.state import Rules, State
from casewire.alerts.troubles import Pace, told
from schemas.alert import Alert
from schemas.errors import TransientError
from schemas.times import from_microseconds
from schemas.topics import TOPICS
from streams.alarms import as_record, of_target
from streams.ledger import Ledger
from streams.records import Out
from tests.alerts.test_role import event, letter
from tests.streams.made import Made

HOUR = 3600
#: A Monday, 0 o'clock.
MONDAY = (4 * 24 + 2900 * 168) * HOUR
RULES = Rules(
    pace=Pace(900),
    channels=["mail"],
    targets={"sink:warehouse": Target("postgresql://db/x", errors_are_safe=False)},
    silence_hours=6,
)


def at(seconds: int) -> str:
    return from_microseconds(seconds * 1_000_000)


def read(out: Out, seconds: int) -> Made:
    return Made(out.value, out.key, out.headers, timestamp=seconds * 1000)


def applied() -> Out:
    ledger = Ledger("state", written="applied")
    ledger.add(event(), "applied")
    return ledger.records()[0]


def handed_over(state: State) -> State:
    return State(RULES, [read(out, 0) for out in state.changes()])


def statuses(alerts: Sequence[Alert]) -> list[tuple[str, str]]:
    return [(alert.group, alert.status) for alert in alerts]


def test_a_silence_is_told_by_a_process_that_did_not_see_the_events() -> None:
    state = State(RULES)
    for day in range(22):
        for hour in range(8, 18):
            state.take(read(applied(), MONDAY + (day * 24 + hour) * HOUR), at(MONDAY))
    today = MONDAY + 22 * 24 * HOUR
    state = handed_over(state)
    state.look(at(today + 15 * HOUR), behind=False)
    state.look(at(today + 16 * HOUR), behind=True)
    state.look(at(today + 16 * HOUR + 60), behind=False)
    state.look(at(today + 16 * HOUR + 120), behind=False)
    assert statuses(state.desk.news()) == [("demo/ingress/silence/cases", "opened")]
    state = handed_over(state)
    state.take(read(applied(), today + 17 * HOUR), at(today + 17 * HOUR))
    state.look(at(today + 17 * HOUR + 60), behind=False)
    assert statuses(state.desk.news()) == [("demo/ingress/silence/cases", "recovered")]


def test_what_is_old_when_it_is_read_is_no_news() -> None:
    state = State(RULES)
    state.take(read(letter(event()), MONDAY), at(MONDAY + 25 * HOUR))
    assert not state.desk.troubles
    state.take(read(letter(event()), MONDAY), at(MONDAY + 23 * HOUR))
    assert list(state.desk.troubles) == ["demo/state/invalid_field/cases"]


def test_a_report_is_told_with_the_address_and_what_was_told_is_no_report() -> None:
    state = State(RULES)
    down = of_target(
        "warehouse", "target_unavailable", TransientError("x"), safe=False, raised_at=at(0)
    )
    state.take(read(as_record(down), MONDAY), at(MONDAY))
    (trouble,) = state.desk.troubles.values()
    assert trouble.address == "postgresql://db/x"
    assert trouble.since == at(MONDAY)
    opened = told(trouble, "opened", at(MONDAY), []).alert(at(MONDAY))
    state.take(read(as_record(opened), MONDAY), at(MONDAY))
    assert state.desk.troubles == {trouble.group: trouble}
    mute = msgspec.structs.replace(opened, status="muted", muted_until=at(MONDAY + HOUR))
    state.take(read(as_record(mute), MONDAY), at(MONDAY))
    assert handed_over(state).desk.troubles[trouble.group].muted_until == at(MONDAY + HOUR)


def test_what_is_nothing_of_ours_is_passed_over() -> None:
    state = State(RULES)
    for schema in (b"alert/1", b"dead-letter/1", b"batch-delivery/1", b"event-delivery/1"):
        for value in (b"{", b"{}", b"[]", orjson.dumps({"group": 1}), None):
            state.take(Made(value, headers=[("casewire-schema", schema)]), at(0))
    assert not state.changes()


def test_a_topic_has_one_short_name_whatever_its_prefix() -> None:
    for prefix in ("", "casewire.", "x"):
        assert [short_name(prefix + name) for name in TOPICS] == list(TOPICS)


def test_a_sink_that_is_configured_no_more_leaves_no_alert_open() -> None:
    state = State(RULES)
    for sink in ("warehouse", "old"):
        down = of_target(
            sink, "target_unavailable", TransientError("x"), safe=False, raised_at=at(0)
        )
        state.take(read(as_record(down), MONDAY), at(MONDAY))
    state = handed_over(state)
    state.retire(at(MONDAY + HOUR))
    state.look(at(MONDAY + HOUR), behind=True)
    assert {each.target: each.open for each in state.desk.troubles.values()} == {
        "warehouse": True,
        "old": False,
    }
