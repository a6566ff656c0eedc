"""Who gets which partitions: Faust's assignor, but never on half a view of the topics."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from faust.assignor.partition_assignor import PartitionAssignor

from schemas.errors import WorkerError


class UnknownTopicsError(WorkerError):
    """The broker does not say of all topics which partitions they have."""


class WholeAssignor(PartitionAssignor):
    """Ends the worker that leads the group rather than leave topics out.

    A broker that has just started may not know its topics yet. Faust leaves out those that are
    missing: then nobody reads them, and a table whose changelog is missing is taken for empty.
    """

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
