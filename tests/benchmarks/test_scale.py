from dataclasses import replace

from hypothesis import given, strategies as st

from benchmarks.scale import LOAD, NEEDS, RECOVERY_SECONDS, Need, limit, lines, measured, planned

MEASURED = measured()

needs = st.builds(
    Need,
    name=st.just("some"),
    events=st.floats(0.1, 10_000),
    mean=st.floats(0.1, 5_000),
    cases=st.integers(1, 2_000_000_000),
    replication=st.integers(1, 3),
)


def test_the_arithmetic_allows_what_one_machine_has_done() -> None:
    """The measured rate had the sender on the same cores, which the model does not count."""
    assert MEASURED.sustained <= limit(MEASURED)


@given(needs)
def test_what_is_planned_does_the_work(need: Need) -> None:
    plan = planned(need, MEASURED)
    for role, processes in (
        ("ingress", plan.ingress), ("streams", plan.streams), ("sink", plan.sinks),
    ):  # fmt: skip
        assert need.events * MEASURED.cpu[role] / 1e6 <= processes * LOAD + 1e-9
    assert plan.partitions >= 2 * max(plan.streams, plan.sinks)
    assert plan.recovery <= RECOVERY_SECONDS + 1e-6


@given(needs, st.floats(1, 10))
def test_more_events_and_cases_never_need_less(need: Need, times: float) -> None:
    more = replace(
        need, events=need.events * times, mean=need.mean * times, cases=int(need.cases * times)
    )
    less, plan = planned(need, MEASURED), planned(more, MEASURED)
    assert (plan.ingress, plan.streams, plan.sinks) >= (less.ingress, less.streams, less.sinks)
    assert plan.disk >= less.disk
    assert plan.cores >= less.cores


def test_every_need_has_a_column() -> None:
    table = [line for line in lines(NEEDS, MEASURED) if line.startswith("|")]
    assert {line.count("|") for line in table} == {len(NEEDS) + 2}
