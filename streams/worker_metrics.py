"""What a Faust worker holds and how far it is behind, asked when the metrics are read."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from streams.batches.lag import Behind
from streams.batches.table import BatchTable

Name: TypeAlias = Literal[
    "casewire_partitions",
    "casewire_lag_events",
    "casewire_lag_seconds",
    "casewire_commit_age_seconds",
    "casewire_rebalancing",
    "casewire_recovering",
    "casewire_recovery_left_records",
    "casewire_table_states",
    "casewire_table_disk_bytes",
]

#: Name: (explanation, labels).
METRICS: Final[Mapping[Name, tuple[str, tuple[str, ...]]]] = {
    "casewire_partitions": ("Partitions that this process reads.", ("role", "topic")),
    "casewire_lag_events": (
        "Records of the partitions of this process that are not committed.",
        ("role", "topic"),
    ),
    "casewire_lag_seconds": (
        "Age of the oldest record of the partitions of this process that is not committed.",
        ("role", "topic"),
    ),
    "casewire_commit_age_seconds": (
        "For how long the oldest batch that this process has begun is not committed.",
        ("role",),
    ),
    "casewire_rebalancing": ("1 while partitions change hands.", ("role",)),
    "casewire_recovering": ("1 while tables are read from their changelogs.", ("role",)),
    "casewire_recovery_left_records": (
        "Records of changelogs that are still to be read before work goes on.",
        ("role",),
    ),
    "casewire_table_states": ("States in the tables of this process.", ("table",)),
    "casewire_table_disk_bytes": (
        "Bytes of the tables of this process on disk; 0 of tables in memory.",
        ("table",),
    ),
}


class WorkerMetrics(Collector):
    """`role` as the process is announced; `short` makes a topic's short name of its full one."""

    def __init__(self, app: Any, role: str, short: Callable[[str], str]) -> None:
        self._app = app
        self._role = role
        self._short = short

    def collect(self) -> Iterator[Metric]:
        yield from self._lag()
        yield from self._recovery()
        yield from self._tables()

    def _lag(self) -> Iterator[Metric]:
        app = self._app
        joined = app.consumer_generation_id > 0
        held: dict[str, list[Behind]] = {
            self._short(topic): []
            for agent in app.agents.values()
            for topic in agent.channel.topics
        }
        for place, behind in app.consumer.lag.places().items() if joined else ():
            held[self._short(place.topic)].append(behind)
        partitions, events = _family("casewire_partitions"), _family("casewire_lag_events")
        seconds = _family("casewire_lag_seconds")
        for topic, places in held.items():
            labels = (self._role, topic)
            partitions.add_metric(labels, len(places))
            events.add_metric(labels, sum(each.events for each in places))
            seconds.add_metric(labels, max((each.seconds for each in places), default=0.0))
        yield from (partitions, events, seconds)
        age = app.consumer.lag.commit_age() if joined else 0.0
        yield self._of_role("casewire_commit_age_seconds", age)

    def _recovery(self) -> Iterator[Metric]:
        app = self._app
        left = sum(app.tables.recovery.active_remaining().values()) if app.in_recovery else 0
        yield self._of_role("casewire_rebalancing", app.rebalancing)
        yield self._of_role("casewire_recovering", app.in_recovery)
        yield self._of_role("casewire_recovery_left_records", left)

    def _tables(self) -> Iterator[Metric]:
        states, disk = _family("casewire_table_states"), _family("casewire_table_disk_bytes")
        for name, table in self._app.tables.items():
            if isinstance(table, BatchTable):
                size = table.shelves.size()
                states.add_metric((name,), size.states)
                disk.add_metric((name,), size.disk_bytes)
        yield from (states, disk)

    def _of_role(self, name: Name, value: float) -> GaugeMetricFamily:
        family = _family(name)
        family.add_metric((self._role,), value)
        return family


def _family(name: Name) -> GaugeMetricFamily:
    explanation, labels = METRICS[name]
    return GaugeMetricFamily(name, explanation, labels=labels)
