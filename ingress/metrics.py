"""The ingress' metrics, and all their names in one table."""

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from ingress.limits import Budget

Name: TypeAlias = Literal[
    "casewire_ingress_events_total",  # counter: events that are durable
    "casewire_ingress_body_bytes_total",  # counter: bytes of their bodies
    "casewire_ingress_answers_total",  # counter: answers of any kind
    "casewire_ingress_in_flight_events",  # gauge: requests that are being received or stored
    "casewire_ingress_in_flight_bytes",  # gauge: bytes of their bodies
    "casewire_ingress_seconds",  # histogram: from the request's head to the durable answer
]

#: Name: (explanation, labels).
METRICS: Final[Mapping[Name, tuple[str, tuple[str, ...]]]] = {
    "casewire_ingress_events_total": ("Events made durable.", ("domain", "method")),
    "casewire_ingress_body_bytes_total": ("Bytes of durable events' bodies.", ("domain",)),
    "casewire_ingress_answers_total": ("HTTP answers.", ("status",)),
    "casewire_ingress_in_flight_events": ("Requests being received or stored.", ()),
    "casewire_ingress_in_flight_bytes": ("Bytes of bodies being received or stored.", ()),
    "casewire_ingress_seconds": ("Seconds from a request's head to its durable answer.", ()),
}

#: Label of every domain that the configuration does not name, so that labels stay bounded.
OTHER_DOMAIN: Final = "other"

_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class IngressMetrics:
    """What the ingress counts. One of these a registry."""

    def __init__(
        self,
        configured: Callable[[str], bool],
        budget: Budget,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        def counter(name: Name) -> Counter:
            return Counter(name, *METRICS[name], registry=registry)

        def gauge(name: Name) -> Gauge:
            return Gauge(name, *METRICS[name], registry=registry)

        self._configured = configured
        self._events = counter("casewire_ingress_events_total")
        self._bytes = counter("casewire_ingress_body_bytes_total")
        self._answers = counter("casewire_ingress_answers_total")
        gauge("casewire_ingress_in_flight_events").set_function(lambda: budget.events)
        gauge("casewire_ingress_in_flight_bytes").set_function(lambda: budget.bytes)
        name: Name = "casewire_ingress_seconds"
        self._seconds = Histogram(name, *METRICS[name], buckets=_BUCKETS, registry=registry)

    def stored(self, domain: str, method: str, size: int, seconds: float) -> None:
        label = domain if self._configured(domain) else OTHER_DOMAIN
        self._events.labels(label, method).inc()
        self._bytes.labels(label).inc(size)
        self._seconds.observe(seconds)

    def answered(self, status: int) -> None:
        self._answers.labels(str(status)).inc()
