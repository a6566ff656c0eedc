from collections import Counter

from hypothesis import given, strategies as st
from prometheus_client import CollectorRegistry

from schemas.times import from_microseconds
from streams.ages import Ages, received

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
LIVE = ("casewire-origin", b"live")


@given(st.lists(st.integers(-10, 10**7)))
def test_each_age_is_in_its_bucket_and_in_the_sum(seconds: list[int]) -> None:
    registry = CollectorRegistry()
    times: Counter[str | None] = Counter(from_microseconds(NOW - age * SECOND) for age in seconds)
    Ages(registry).add("here", times, NOW)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"sink": "here", **labels})

    assert value("casewire_sink_age_seconds_sum") == sum(max(0, age) for age in seconds)
    assert value("casewire_sink_age_seconds_count") == len(seconds)
    for bound in (1, 60, 3600, 86400):
        counted = value("casewire_sink_age_seconds_bucket", le=f"{bound}.0")
        assert counted == sum(age <= bound for age in seconds)


def test_the_age_is_told_by_hq_and_by_what_is_live_only() -> None:
    case = ("server-modified-on", b"2026-01-01T00:00:00.000000Z")
    form = ("received-on", b"2026-01-02T00:00:00.000000Z")
    assert received([LIVE, case]) == case[1].decode()
    assert received([case, LIVE, form]) == form[1].decode()
    assert received([LIVE]) is None
    assert received([("casewire-origin", b"replay"), form]) is None


def test_what_is_no_time_is_not_counted() -> None:
    registry = CollectorRegistry()
    Ages(registry).add("here", Counter({None: 1, "soon": 1, "2026-01-01": 1}), NOW)
    assert registry.get_sample_value("casewire_sink_age_seconds_count", {"sink": "here"}) == 0
