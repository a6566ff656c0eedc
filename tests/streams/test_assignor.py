"""How partitions are shared out among the workers that come and go."""

from collections.abc import Mapping, Sequence

from faust.assignor.client_assignment import CopartitionedAssignment
from hypothesis import given, strategies as st

from streams.batches.assignor import BalancedAssignor, WholeAssignor

Held = Mapping[str, tuple[set[int], set[int]]]


def shared_out(held: Held, partitions: int, replicas: int) -> Held:
    """Return who owns and who follows which partitions after a rebalance."""
    before = {
        name: CopartitionedAssignment(set(actives), set(standbys), {"cases"})
        for name, (actives, standbys) in held.items()
    }
    after = BalancedAssignor({"cases"}, before, partitions, replicas).get_assignment()
    return {name: (each.actives, each.standbys) for name, each in after.items()}


groups = st.lists(st.sets(st.sampled_from("abcdef"), min_size=1), min_size=1, max_size=6)


@given(groups, st.integers(6, 12), st.integers(0, 2))
def test_every_worker_has_work_and_every_partition_its_standbys(
    members: Sequence[set[str]], partitions: int, replicas: int
) -> None:
    """Whoever came and went: and while nobody does, nothing moves."""
    held: Held = {}
    for names in members:
        held = {name: held.get(name, (set(), set())) for name in names}
        held = shared_out(held, partitions, replicas)
        owned = [number for actives, _ in held.values() for number in actives]
        assert sorted(owned) == list(range(partitions))
        share = partitions // len(names)
        assert {len(actives) for actives, _ in held.values()} <= {share, share + 1}
        followed = [number for _, standbys in held.values() for number in standbys]
        assert sorted(followed) == sorted([*range(partitions)] * min(replicas, len(names) - 1))
        assert all(not actives & standbys for actives, standbys in held.values())
        assert shared_out(held, partitions, replicas) == held


@given(st.integers(2, 5), st.integers(6, 12), st.integers(1, 2))
def test_who_joins_takes_no_more_than_its_share(
    workers: int, partitions: int, replicas: int
) -> None:
    names = "abcdef"[:workers]
    before = shared_out({name: (set(), set()) for name in names}, partitions, replicas)
    after = shared_out({**before, "z": (set(), set())}, partitions, replicas)
    for name in names:
        assert after[name][0] <= before[name][0]
    assert len(after["z"][0]) == partitions // (workers + 1)


def test_workers_share_out_by_it() -> None:
    """Faust has no setting for it: an upgrade that takes the class from elsewhere is told here."""
    function = WholeAssignor._perform_assignment
    assert function.__globals__["CopartitionedAssignor"] is BalancedAssignor
    assert "CopartitionedAssignor" in function.__code__.co_names
