"""What the alerts role sees of all roles from Kafka alone, as metrics.

A worker that is gone, or frozen, tells nobody how far it is behind.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias, get_args

import structlog
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from casewire.overview import Overview, Watch
from schemas.errors import Cause, UnavailableError, named
from schemas.settings import KafkaSettings

#: Between two looks.
EVERY_SECONDS: Final = 15.0

Name: TypeAlias = Literal[
    "casewire_group_lag_events", "casewire_group_lag_seconds", "casewire_dead_letters_open"
]

#: Name: (explanation, labels).
METRICS: Final[Mapping[Name, tuple[str, tuple[str, ...]]]] = {
    "casewire_group_lag_events": (
        "Records of a topic that a role has not committed, all its processes together.",
        ("role", "topic"),
    ),
    "casewire_group_lag_seconds": (
        "Age of the oldest record of a topic that a role has not committed.",
        ("role", "topic"),
    ),
    "casewire_dead_letters_open": (
        "Dead letters that nobody has replayed or discarded.",
        ("stage", "cause"),
    ),
}

_log = structlog.get_logger(__name__)


class OverviewMetrics(Collector):
    """Tells of the last look; `stages` are those that can have dead letters.

    What is behind gets older until the next look, however long the broker does not answer.
    """

    def __init__(self, stages: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stages = stages
        self._clock = clock
        self._looked = 0.0
        self._overview: Overview | None = None

    def take(self, overview: Overview) -> None:
        self._overview = overview
        self._looked = self._clock()

    def collect(self) -> Iterator[Metric]:
        events, seconds, letters = (_family(name) for name in METRICS)
        seen = self._overview
        since = self._clock() - self._looked
        for reader in seen.readers if seen else ():
            labels = (reader.role, reader.topic)
            events.add_metric(labels, reader.lag)
            seconds.add_metric(labels, reader.lag_seconds + since if reader.lag_seconds else 0.0)
        found = dict.fromkeys((stage, cause) for stage in self._stages for cause in get_args(Cause))
        counts = {(each.stage, each.cause): each.count for each in (seen.causes if seen else ())}
        for place in {**found, **counts} if seen else ():
            letters.add_metric(place, counts.get(place, 0))
        yield from (events, seconds, letters)


def _family(name: Name) -> GaugeMetricFamily:
    explanation, labels = METRICS[name]
    return GaugeMetricFamily(name, explanation, labels=labels)


async def follow(
    kafka: KafkaSettings, sinks: Mapping[str, Sequence[str]], metrics: OverviewMetrics
) -> None:
    """Look again and again until cancelled. `sinks` has the topics (short names) of each."""
    while True:
        try:
            async with Watch(kafka, sinks) as watch:
                while True:
                    metrics.take(await watch.look())
                    await asyncio.sleep(EVERY_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is, people must still be told
            known = isinstance(error, UnavailableError)
            _log.warning(
                "how far the roles are behind cannot be told now",
                exc_info=not known,
                **named(error),
            )
            await asyncio.sleep(EVERY_SECONDS)
