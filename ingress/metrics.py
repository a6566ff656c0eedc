"""The ingress' metrics, and all their names in one table.

They are counted in plain integers, and made into Prometheus' families when they are asked for: its
own counters are slow to find and slow to count.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from time import time
from typing import Final, Literal, TypeAlias, get_args

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from ingress.answers import Answer, Refusal
from ingress.limits import Budget

Name: TypeAlias = Literal[
    "casewire_ingress_events_total",  # counter: events that are durable
    "casewire_ingress_body_bytes_total",  # counter: bytes of their bodies
    "casewire_ingress_answers_total",  # counter: answers of any kind
    "casewire_ingress_refusals_total",  # counter: answers that did not store, by why
    "casewire_ingress_connections",  # gauge: connections that are open
    "casewire_ingress_in_flight_events",  # gauge: requests that are being received or stored
    "casewire_ingress_in_flight_bytes",  # gauge: bytes of their bodies
    "casewire_ingress_seconds",  # histogram: from a request's first byte to the durable answer
    "casewire_ingress_last_event_timestamp_seconds",  # gauge: when the last event became durable
]

#: Name: (explanation, labels).
METRICS: Final[Mapping[Name, tuple[str, tuple[str, ...]]]] = {
    "casewire_ingress_events_total": ("Events made durable.", ("domain", "method")),
    "casewire_ingress_body_bytes_total": ("Bytes of durable events' bodies.", ("domain",)),
    "casewire_ingress_answers_total": ("HTTP answers.", ("status",)),
    "casewire_ingress_refusals_total": ("Requests that were not stored.", ("reason",)),
    "casewire_ingress_connections": ("Connections that are open.", ()),
    "casewire_ingress_in_flight_events": ("Requests being received or stored.", ()),
    "casewire_ingress_in_flight_bytes": ("Bytes of bodies being received or stored.", ()),
    "casewire_ingress_seconds": (
        "Seconds from a request's first byte to its durable answer.",
        ("domain",),
    ),
    "casewire_ingress_last_event_timestamp_seconds": (
        "When this process made the last event durable.",
        ("domain",),
    ),
}

#: Label of every domain that the configuration does not name, so that labels stay bounded.
OTHER_DOMAIN: Final = "other"

_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BOUNDS: Final = (*(str(bound) for bound in _BUCKETS), "+Inf")


@dataclass(slots=True)
class _Domain:
    """What was stored for a domain, and when last (seconds since 1970).

    `buckets` holds how many took up to each of `_BOUNDS`.
    """

    methods: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    seconds: float = 0.0
    last: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))


class IngressMetrics(Collector):
    """What the ingress counts. One of these a registry.

    `configured` tells whether a domain may be a label; `connections` may be set to what counts
    the connections that are open.
    """

    def __init__(
        self,
        configured: Callable[[str], bool],
        budget: Budget,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self.connections: Callable[[], int] = int
        self._configured = configured
        self._budget = budget
        self._domains: dict[str, _Domain] = {}
        self._answers: Counter[int] = Counter()
        self._refusals: Counter[str] = Counter()
        registry.register(self)

    def label(self, domain: str) -> str:
        return domain if self._configured(domain) else OTHER_DOMAIN

    def stored(self, domain: str, method: str, size: int, seconds: float) -> None:
        """Count an event that is durable, and its answer."""
        label = self.label(domain)
        counts = self._domains.get(label)
        if counts is None:
            counts = self._domains[label] = _Domain()
        counts.methods[method] += 1
        counts.bytes += size
        counts.seconds += seconds
        counts.last = time()
        counts.buckets[bisect_left(_BUCKETS, seconds)] += 1
        self._answers[200] += 1

    def answered(self, answer: Answer) -> None:
        """Count an answer to a request that was not stored."""
        self._answers[answer.status] += 1
        if answer.refusal is not None:
            self._refusals[answer.refusal] += 1

    def collect(self) -> Iterator[Metric]:
        events = _counter("casewire_ingress_events_total")
        size = _counter("casewire_ingress_body_bytes_total")
        seconds = _histogram("casewire_ingress_seconds")
        last = _family("casewire_ingress_last_event_timestamp_seconds")
        for domain, counts in self._domains.items():
            for method, number in counts.methods.items():
                events.add_metric([domain, method], number)
            size.add_metric([domain], counts.bytes)
            buckets = list(zip(_BOUNDS, accumulate(counts.buckets), strict=True))
            seconds.add_metric([domain], buckets, counts.seconds)
            last.add_metric([domain], counts.last)
        answered = _counter("casewire_ingress_answers_total")
        for status, number in self._answers.items():
            answered.add_metric([str(status)], number)
        refused = _counter("casewire_ingress_refusals_total")
        for reason in get_args(Refusal):
            refused.add_metric([reason], self._refusals[reason])
        yield from (events, size, seconds, last, answered, refused)
        yield _gauge("casewire_ingress_connections", self.connections())
        yield _gauge("casewire_ingress_in_flight_events", self._budget.events)
        yield _gauge("casewire_ingress_in_flight_bytes", self._budget.bytes)


def _counter(name: Name) -> CounterMetricFamily:
    explanation, labels = METRICS[name]
    return CounterMetricFamily(name, explanation, labels=labels)


def _histogram(name: Name) -> HistogramMetricFamily:
    explanation, labels = METRICS[name]
    return HistogramMetricFamily(name, explanation, labels=labels)


def _gauge(name: Name, value: float) -> GaugeMetricFamily:
    family = _family(name)
    family.add_metric([], value)
    return family


def _family(name: Name) -> GaugeMetricFamily:
    explanation, labels = METRICS[name]
    return GaugeMetricFamily(name, explanation, labels=labels)
