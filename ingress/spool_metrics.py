"""The spool's metrics, and all their names in one table."""

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

Name: TypeAlias = Literal[
    "casewire_spool_events",  # gauge: events that wait for Kafka
    "casewire_spool_bytes",  # gauge: bytes on disk, drained ones of a segment in use included
    "casewire_spool_limit_bytes",  # gauge: how large it may become
    "casewire_spool_oldest_seconds",  # gauge: age of the oldest event that waits
    "casewire_spool_stored_total",  # counter: events stored
    "casewire_spool_drained_total",  # counter: events that Kafka has taken since
    "casewire_spool_failures_total",  # counter: groups of events that could not be written
    "casewire_spool_torn_total",  # counter: last records that a crash cut off
    "casewire_spool_damaged_total",  # counter: damaged places, where events are lost
    "casewire_spool_refused_total",  # counter: events that Kafka refuses, put back
]

METRICS: Final[Mapping[Name, str]] = {
    "casewire_spool_events": "Spooled events that wait for Kafka.",
    "casewire_spool_bytes": "Bytes of the spool on disk.",
    "casewire_spool_limit_bytes": "Bytes that the spool of this process may take on disk.",
    "casewire_spool_oldest_seconds": "Age of the oldest spooled event.",
    "casewire_spool_stored_total": "Events stored in the spool.",
    "casewire_spool_drained_total": "Spooled events that Kafka has taken.",
    "casewire_spool_failures_total": "Groups of events that could not be written to the spool.",
    "casewire_spool_torn_total": "Records at a spool's end that a crash cut off.",
    "casewire_spool_damaged_total": "Damaged places in the spool, in which events are lost.",
    "casewire_spool_refused_total": "Spooled events that Kafka refused and that wait again.",
}


class SpoolMetrics:
    """What the spool counts. One of these a registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def counter(name: Name) -> Counter:
            return Counter(name, METRICS[name], registry=registry)

        self._registry = registry
        self.stored = counter("casewire_spool_stored_total")
        self.drained = counter("casewire_spool_drained_total")
        self.failures = counter("casewire_spool_failures_total")
        self.torn = counter("casewire_spool_torn_total")
        self.damaged = counter("casewire_spool_damaged_total")
        self.refused = counter("casewire_spool_refused_total")

    def show(
        self,
        limit: int,
        events: Callable[[], float],
        size: Callable[[], float],
        age: Callable[[], float],
    ) -> None:
        """Have the gauges ask these when they are read."""
        for name, value in self._gauges(events, size, age).items():
            Gauge(name, METRICS[name], registry=self._registry).set_function(value)
        name = "casewire_spool_limit_bytes"
        Gauge(name, METRICS[name], registry=self._registry).set(limit)

    @staticmethod
    def _gauges(
        events: Callable[[], float], size: Callable[[], float], age: Callable[[], float]
    ) -> Mapping[Name, Callable[[], float]]:
        return {
            "casewire_spool_events": events,
            "casewire_spool_bytes": size,
            "casewire_spool_oldest_seconds": age,
        }
