"""How old what a sink writes is: from HQ's `received-on` to written, as a histogram.

Batches are counted by the times that they hold: what one form changed has one time. A histogram of
Prometheus' own client would have to be told of each event.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from schemas.envelope import Headers
from schemas.times import to_microseconds

NAME: Final = "casewire_sink_age_seconds"
_HOUR: Final = 3600.0
_DAY: Final = 24 * _HOUR
_BUCKETS: Final = (
    1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, _HOUR, 6 * _HOUR, _DAY, 7 * _DAY,
)  # fmt: skip
_BOUNDS: Final = (*(str(bound) for bound in _BUCKETS), "+Inf")


def received(headers: Headers) -> str | None:
    """Return when HQ received what an event tells of; None if HQ does not say, or of a replay.

    Forms have `received-on`. The `server-modified-on` of a case is the `received-on` of the form
    that changed it (protocol.md §6.5).
    """
    found = dict(headers)
    if found.get("casewire-origin") != b"live":
        return None
    said = found.get("received-on") or found.get("server-modified-on")
    return None if said is None else said.decode("latin-1")


@dataclass(slots=True)
class _Counts:
    """`buckets` holds how many were as old as each of `_BOUNDS`, and no older."""

    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))


class Ages(Collector):
    """The histogram of each sink. One of these a registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._sinks: dict[str, _Counts] = {}
        registry.register(self)

    def begin(self, sink: str) -> None:
        self._sinks.setdefault(sink, _Counts())

    def add(self, sink: str, times: Counter[str | None], now: int) -> None:
        """Count what was written at `now` (microseconds since 1970), by when HQ received it.

        What is no time as HQ writes it (protocol.md §2) is left out.
        """
        counts = self._sinks.setdefault(sink, _Counts())
        for age, number in _ages(times, now).items():
            counts.buckets[bisect_left(_BUCKETS, age)] += number
            counts.seconds += age * number

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            NAME, "Seconds from HQ's received-on to written.", labels=("sink",)
        )
        for sink, counts in self._sinks.items():
            buckets = list(zip(_BOUNDS, accumulate(counts.buckets), strict=True))
            family.add_metric([sink], buckets, counts.seconds)
        yield family


def _ages(times: Counter[str | None], now: int) -> Mapping[float, int]:
    """Return how many are how old, in seconds: 0 at least, whatever HQ's clock says."""
    ages: Counter[float] = Counter()
    for time, number in times.items():
        try:
            age = (now - to_microseconds(time or "")) / 1_000_000
        except (TypeError, ValueError):  # no time, or one without a zone
            continue
        ages[max(0.0, age)] += number
    return ages
