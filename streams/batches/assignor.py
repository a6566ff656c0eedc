"""Who gets which partitions: Faust's assignor, but never on half a view, and nobody goes idle."""

import asyncio
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any

from faust.assignor import partition_assignor
from faust.assignor.copartitioned_assignor import CopartitionedAssignor
from faust.assignor.partition_assignor import PartitionAssignor

from schemas.errors import WorkerError


class UnknownTopicsError(WorkerError):
    """The broker does not say of all topics which partitions they have."""


class BalancedAssignor(CopartitionedAssignor):
    """Gives each worker its share, and moves no more than that takes.

    Faust's own takes of a worker what is above the share rounded up if there are standbys: a third
    worker on four partitions gets nothing to do. If there are none, what is above the share rounded
    down: with three workers on four partitions, one of these moves at each rebalance.
    """

    def get_assignment(self) -> Any:
        held = self._client_assignments
        for each in held.values():
            each.unassign_extras(self.max_capacity, self.replicas)
        self._assign(active=True)
        self._balance([held[name] for name in sorted(held)])
        self._assign(active=False)
        return held

    def _balance(self, workers: Sequence[Any]) -> None:
        while True:
            poorest = min(workers, key=lambda each: len(each.actives))
            richest = max(workers, key=lambda each: len(each.actives))
            if len(poorest.actives) >= self.min_capacity:
                return
            _move(richest, poorest)


def _move(richest: Any, poorest: Any) -> None:
    """Give a partition away: one that the other follows, if there is one, which then swap roles."""
    followed = richest.actives & poorest.standbys
    partition = min(followed or richest.actives)
    richest.actives.remove(partition)
    poorest.actives.add(partition)
    if followed:
        poorest.standbys.remove(partition)
        richest.standbys.add(partition)


class WholeAssignor(PartitionAssignor):
    """Ends the worker that leads the group rather than leave topics out.

    A broker that has just started may not know its topics yet. Faust leaves out those that are
    missing: then nobody reads them, and a table whose changelog is missing is taken for empty.
    """

    # Faust names the class that shares out partitions nowhere but in this method.
    _perform_assignment = FunctionType(
        PartitionAssignor._perform_assignment.__code__,  # noqa: SLF001
        {**vars(partition_assignor), "CopartitionedAssignor": BalancedAssignor},
    )

    def assign(self, cluster: Any, member_metadata: Any) -> Any:
        topics = {topic for member in member_metadata.values() for topic in member.subscription}
        known = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        missing = incomplete(known)
        if missing:
            error = UnknownTopicsError(
                f"the broker does not know all partitions of {', '.join(missing)} yet; "
                "this worker starts anew"
            )
            # Kafka's client has a thread of its own.
            asyncio.run_coroutine_threadsafe(self.app.crash(error), self.app.loop)
            raise error
        return super().assign(cluster, member_metadata)


def incomplete(partitions: Mapping[str, int]) -> Sequence[str]:
    """Return the topics with fewer partitions than the others; all topics have as many."""
    most = max(partitions.values(), default=0)
    return sorted(topic for topic, count in partitions.items() if count < max(most, 1))
