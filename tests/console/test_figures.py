"""What figures and values become on a page."""

import pytest
from hypothesis import given, strategies as st

from casewire.console.figures import Step, steps
from casewire.console.overview_pages import target_trouble
from casewire.console.wording import capital, moment, path, properties, rate, span
from casewire.failures import OpenAlert
from casewire.overview import Reader
from schemas.errors import TransientError
from schemas.times import from_microseconds
from streams.alarms import TargetCause, of_target


def test_a_role_is_as_late_as_its_latest_topic() -> None:
    readers = [
        Reader("streams", "captured", 3, 2.0, None),
        Reader("sink-a", "case-state", 1, 90.0, 2.5),
        Reader("sink-a", "form-state", 4, 7.0, 0.5),
    ]
    found = steps(readers)
    assert list(found) == ["streams", "sink-a"]
    assert found["streams"] == Step("streams", 3, 2.0, None)
    assert found["sink-a"] == Step("sink-a", 5, 90.0, 3.0)


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=5), st.sets(st.text(), max_size=3))
def test_of_people_nothing_is_shown_that_was_not_asked_for(
    values: dict[str, str], asked: set[str]
) -> None:
    held = {"case_type": "patient", **values}
    for each in properties(held, asked - {"*"}):
        plain = each.name in {"case_type", "owner_id"}
        assert (each.value is not None) == (plain or each.name in asked)
    assert all(each.value is not None for each in properties(held, {"*"}))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (0.42, "0.4 s"), (42.2, "42 s"), (90, "2 min"), (7300, "2 h"), (200_000, "2 d")],
)
def test_a_span_is_told_in_its_largest_unit(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_figures_and_times_are_short() -> None:
    assert [rate(each) for each in (None, 0.0, 0.25, 1234.5)] == [
        "\N{EN DASH}", "0/s", "0.2/s", "1,234/s",
    ]  # fmt: skip
    assert moment(from_microseconds(0)) == "1970-01-01 00:00:00"
    assert moment("") == "\N{EN DASH}"
    assert capital("the JSON is broken") == "The JSON is broken"
    assert path("a b/c?d") == "a%20b/c%3Fd"


@pytest.mark.parametrize("cause", ["target_unavailable", "target_refuses"])
def test_a_sinks_target_is_told_as_its_open_alert_tells_it(cause: TargetCause) -> None:
    report = of_target("warehouse", cause, TransientError("x"), safe=False, raised_at="")
    opened = OpenAlert(
        report.group, report.stage, report.cause, "opened", "", "", 1, report.text, ""
    )
    assert target_trouble([opened], set(), "warehouse")
    assert not target_trouble([opened], {"warehouse"}, "other")
    assert not target_trouble([], set(), "warehouse")


def test_a_sinks_target_is_told_to_be_down_before_an_alert_is() -> None:
    assert "does not answer" in target_trouble([], {"warehouse"}, "warehouse")
