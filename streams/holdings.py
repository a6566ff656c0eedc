"""What a streams worker holds, for its state API."""

from dataclasses import dataclass
from typing import Any

from schemas.partitioner import partition_of
from schemas.settings import KafkaSettings
from streams.api import StateKind
from streams.batches.table import BatchTable
from streams.stores import VERSION_BYTES


@dataclass(frozen=True, slots=True)
class WorkerHoldings:
    """See `streams.api.Holdings`. `app` is the worker's Faust app.

    Faust's leader tells every member at each rebalance who has which partition, and by the URL
    that each one joined with.
    """

    app: Any
    kafka: KafkaSettings

    def partitions(self) -> frozenset[int]:
        if self.app.rebalancing or self.app.in_recovery:
            return frozenset()
        cases = self.kafka.topic("cases")
        held = self.app.assignor.assigned_actives()
        return frozenset(tp.partition for tp in held if tp.topic == cases)

    def owner(self, partition: int) -> str | None:
        states = self.kafka.topic("case-state")
        for url, held in self.app.assignor.tables_metadata().items():
            if partition in held.get(states, ()):
                address: str = url.removeprefix("http://")
                return address
        return None

    def published(self, kind: StateKind, key: bytes) -> bytes | None:
        table: BatchTable = self.app.tables[f"{kind}-state"]
        stored = table.shelves.stored(partition_of(key, self.kafka.partitions), key)
        return None if stored is None else stored[VERSION_BYTES:]
