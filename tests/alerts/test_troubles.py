"""When people are told of a trouble: at once, seldom while it lasts, and when it is over."""

from itertools import pairwise

from hypothesis import given, strategies as st

from casewire.alerts.desk import Desk
from casewire.alerts.reports import Sign
from casewire.alerts.troubles import Pace
from schemas.alert import Alert, group_of
from schemas.times import from_microseconds

PACE = Pace(interval=900, gather=10)
START = 1_795_000_000
GROUP = group_of("demo", "state", "invalid_field", "cases")


def at(seconds: float) -> str:
    return from_microseconds(int((START + seconds) * 1_000_000))


def report(seconds: float, captured_id: str = "e1") -> Alert:
    return Alert(
        group=GROUP,
        domain="demo",
        stage="state",
        cause="invalid_field",
        target="cases",
        text="a time is none",
        captured_ids=[captured_id],
        raised_at=at(seconds),
        subjects=["case c1"],
    )


PASSED = Sign("state", "demo", "cases")


def desk(*channels: str) -> Desk:
    return Desk(PACE, channels)


def told(at_desk: Desk, seconds: float) -> list[str]:
    at_desk.look(at(seconds))
    return [alert.status for alert in at_desk.news()]


def test_a_failure_is_told_once_it_had_company_and_then_seldomer_and_seldomer() -> None:
    here = desk()
    messages = []
    for second in range(0, 4 * 3600, 10):
        here.report(report(second))
        messages += [(what, second) for what in told(here, second)]
    assert messages == [
        ("opened", 10),
        ("updated", 910),
        ("updated", 2710),
        ("updated", 6310),
        ("updated", 13510),
    ]
    assert here.troubles[GROUP].count == 4 * 360


def test_it_lasts_until_nothing_has_failed_for_an_interval_and_something_passed() -> None:
    here = desk()
    here.report(report(0))
    assert told(here, 10) == ["opened"]
    assert told(here, 100_000) == []
    here.report(report(100_000))
    here.passed(PASSED, at(100_001))
    assert told(here, 100_002) == ["updated"]
    assert told(here, 100_899) == []
    assert told(here, 100_902) == ["recovered"]
    assert told(here, 300_000) == []
    here.report(report(300_000))
    assert told(here, 300_010) == ["opened"]
    assert here.troubles[GROUP].count == 1


def test_only_what_is_of_the_same_kind_says_that_it_is_over() -> None:
    here = desk()
    here.report(report(0))
    for sign in (
        Sign("state", "other", "cases"),
        Sign("state", "demo", "forms"),
        Sign("sink:x", "demo", "cases"),
    ):
        here.passed(sign, at(1))
    told(here, 10)
    assert told(here, 10_000) == []
    assert here.troubles[GROUP].open


def test_it_is_over_without_traffic_when_nothing_of_it_is_left() -> None:
    here = desk()
    here.report(report(0))
    assert told(here, 10) == ["opened"]
    here.mended(GROUP, at(1000))
    here.mended("unknown", at(1000))
    here.report(report(1001))  # what was replayed has failed again
    assert told(here, 1900) == ["updated"]
    assert told(here, 10_000) == []
    here.mended(GROUP, at(10_001))
    assert told(here, 10_002) == ["recovered"]
    assert not here.troubles[GROUP].open


def test_a_muted_trouble_is_told_when_the_time_is_over() -> None:
    here = desk()
    here.report(report(0))
    here.mute(GROUP, at(7200))
    here.mute("unknown", at(7200))
    assert told(here, 7199) == []
    assert told(here, 7200) == ["opened"]


def test_each_channel_has_a_message_until_it_took_it() -> None:
    here = desk("mail", "slack")
    here.report(report(0))
    told(here, 10)
    first = here.unsent("mail")
    assert [each.told for each in first] == ["opened"]
    here.sent("mail", first)
    assert here.unsent("mail") == []
    slow = here.unsent("slack")
    here.report(report(20))
    assert told(here, 920) == ["updated"]
    here.sent("slack", slow)
    assert [each.told for each in here.unsent("slack")] == ["updated"]


def test_ids_are_a_few_and_each_is_named_once() -> None:
    here = desk()
    for number in range(30):
        here.report(report(number, f"e{number % 15}"))
    trouble = here.troubles[GROUP]
    assert trouble.captured_ids == [f"e{number}" for number in range(10)]
    assert trouble.subjects == ["case c1"]


steps = st.lists(
    st.tuples(st.sampled_from(["fail", "pass", "wait"]), st.integers(1, 2000)), max_size=60
)


@given(steps)
def test_whatever_happens_nobody_gets_more_than_one_message_an_interval(
    story: list[tuple[str, int]],
) -> None:
    here = desk()
    now = 0
    messages: list[tuple[str, int]] = []
    for what, seconds in story:
        now += seconds
        if what == "fail":
            here.report(report(now))
        elif what == "pass":
            here.passed(PASSED, at(now))
        messages += [(status, now) for status in told(here, now)]
    times = [time for _, time in messages]
    assert all(later - earlier >= PACE.interval for earlier, later in pairwise(times))
    lasting = False
    for status, _ in messages:
        assert lasting == (status != "opened")
        lasting = status != "recovered"
    assert sum(status == "opened" for status, _ in messages) <= sum(w == "fail" for w, _ in story)
