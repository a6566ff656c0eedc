from collections.abc import Mapping, Sequence

from casewire.alerts.overview_metrics import OverviewMetrics
from casewire.failures import Cause
from casewire.overview import Overview, Reader


def seen(readers: Sequence[Reader], causes: Sequence[Cause] = ()) -> Overview:
    return Overview(
        at="2026-11-22T10:00:00.000000Z", flows=(), readers=readers, causes=causes, alerts=()
    )


def told(metrics: OverviewMetrics) -> Mapping[tuple[str, ...], float]:
    """Return the values by name without `casewire_` and labels."""
    return {
        (sample.name.removeprefix("casewire_"), *sample.labels.values()): sample.value
        for metric in metrics.collect()
        for sample in metric.samples
    }


def test_what_waits_gets_older_while_nobody_can_look_and_what_does_not_wait_stays_at_0() -> None:
    now = 100.0
    metrics = OverviewMetrics(["decode"], lambda: now)
    assert told(metrics) == {}
    waits = Reader("sink-a", "case-state", lag=3, lag_seconds=5.0, per_second=None)
    done = Reader("streams", "captured", lag=0, lag_seconds=0.0, per_second=0.0)
    metrics.take(seen([waits, done]))
    now = 160.0
    found = told(metrics)
    assert found["group_lag_seconds", "sink-a", "case-state"] == 65
    assert found["group_lag_seconds", "streams", "captured"] == 0
    assert found["group_lag_events", "sink-a", "case-state"] == 3


def test_each_cause_that_can_be_is_told_from_the_start() -> None:
    metrics = OverviewMetrics(["decode", "sink:a"])
    metrics.take(seen([], [Cause("sink:gone", "conflict", 2, "", "")]))
    found = told(metrics)
    assert found["dead_letters_open", "decode", "malformed_xml"] == 0
    assert found["dead_letters_open", "sink:gone", "conflict"] == 2
    metrics.take(seen([]))
    assert ("dead_letters_open", "sink:gone", "conflict") not in told(metrics)
