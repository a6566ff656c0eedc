"""Who used to send is missed, and nobody is missed who is only asleep."""

import pytest
from hypothesis import given, strategies as st

from casewire.alerts.rhythms import Rhythms
from casewire.alerts.silence import missed, silent, with_hour
from schemas.times import from_microseconds

DAY, WEEK = 24, 168
#: A Monday, 0 o'clock.
MONDAY = 4 * DAY + 2900 * WEEK
LIMIT = 6
OFFICE = [day * DAY + hour for day in range(5) for hour in range(8, 18)]


def sent(pattern: list[int], weeks: int, until: int) -> list[int]:
    """Return the hours of a week's pattern, from MONDAY for some weeks, before `until`."""
    hours = [MONDAY + week * WEEK + hour for week in range(weeks) for hour in pattern]
    kept: list[int] = []
    for hour in hours:
        if hour < until:
            kept = list(with_hour(kept, hour))
    return kept


def first_silence(pattern: list[int], stopped: int) -> int | None:
    """Return how many hours after it stopped a silence is told, within a month."""
    hours = sent(pattern, 9, stopped)
    return next((n for n in range(720) if silent(hours, stopped + n, LIMIT)), None)


def test_an_office_that_stops_is_missed_the_same_day_and_its_week_end_is_not() -> None:
    tuesday = MONDAY + 4 * WEEK + DAY
    assert first_silence(OFFICE, tuesday + 9) == LIMIT
    friday_night = MONDAY + 4 * WEEK + 4 * DAY + 18
    assert first_silence(OFFICE, friday_night) == 2 * DAY + 14 + LIMIT


def test_who_sends_once_a_day_is_missed_after_two() -> None:
    daily = [day * DAY + (day * 5) % 11 for day in range(7)]
    stopped = MONDAY + 4 * WEEK
    last = daily[-1] - WEEK
    told = first_silence(daily, stopped)
    assert told is not None
    assert DAY < told - last <= 3 * DAY


def test_a_holiday_does_not_make_deaf_and_is_no_rhythm() -> None:
    holiday = MONDAY + 3 * WEEK + 2 * DAY
    hours = [h for h in sent(OFFICE, 9, MONDAY + 4 * WEEK + DAY + 9) if not 0 <= h - holiday < DAY]
    assert silent(hours, MONDAY + 4 * WEEK + DAY + 9 + LIMIT, LIMIT)
    assert missed(hours, MONDAY + 4 * WEEK + 2 * DAY + 18) == 9


def test_of_somebody_new_nothing_is_usual_yet() -> None:
    hours = sent(OFFICE, 1, MONDAY + WEEK)
    assert not any(silent(hours, MONDAY + WEEK + n, LIMIT) for n in range(300))
    assert not silent([], MONDAY, LIMIT)


@given(st.lists(st.integers(0, WEEK - 1), min_size=1, unique=True))
def test_who_goes_on_as_every_week_is_never_silent(pattern: list[int]) -> None:
    pattern = sorted(pattern)
    start = MONDAY + 3 * WEEK
    kept = sent(pattern, 3, start)
    for hour in range(start, start + WEEK):
        assert not silent(kept, hour, LIMIT)
        if (hour - MONDAY) % WEEK in pattern:
            kept = list(with_hour(kept, hour))


@given(st.lists(st.integers(0, WEEK - 1), min_size=LIMIT, unique=True), st.integers(0, WEEK - 1))
def test_who_sends_in_six_hours_of_a_week_is_missed_within_a_week(
    pattern: list[int], stops: int
) -> None:
    told = first_silence(sorted(pattern), MONDAY + 4 * WEEK + stops)
    assert told is not None
    assert told <= WEEK


@pytest.mark.parametrize("limit", [0, LIMIT])
def test_it_is_looked_for_once_an_hour_and_not_in_the_first(limit: int) -> None:
    def time(hour: int, minute: int = 0) -> str:
        return from_microseconds((hour * 60 + minute) * 60_000_000)

    rhythms = Rhythms(limit)
    for hour in sent(OFFICE, 9, MONDAY + 4 * WEEK):
        rhythms.came("demo", "cases", time(hour, 10))
        rhythms.came("demo", "cases", time(hour, 50))
    assert len(rhythms.changes()) == 1
    late = MONDAY + 4 * WEEK + 17
    assert rhythms.look(time(late)) == []
    assert rhythms.look(time(late, 59)) == []
    found = rhythms.look(time(late + 1))
    assert [each.group for each in found] == (["demo/ingress/silence/cases"] if limit else [])
    assert rhythms.look(time(late + 1, 30)) == []
    rhythms.came("demo", "cases", time(late + 1, 31))
    assert rhythms.look(time(late + 2)) == []
