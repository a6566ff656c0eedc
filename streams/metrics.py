"""What the streams role and the sinks count. One visible table of names."""

import contextlib
from collections.abc import Iterable
from typing import Final, get_args

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from schemas.errors import Cause
from streams.compact import Outcome

DECODED: Final = Counter(
    "casewire_decoded_events_total", "Captured events that became typed ones.", ["topic"]
)
DEAD_LETTERS: Final = Counter(
    "casewire_dead_letters_total", "Events that became dead letters.", ["stage", "cause"]
)
JUDGED: Final = Counter(
    "casewire_judged_events_total", "Case and form events by what became of them.",
    ["topic", "outcome"],
)  # fmt: skip
DOUBTFUL: Final = Counter(
    "casewire_doubtful_orders_total", "Pairs whose order HQ does not tell (rule 2).", ["topic"]
)
UNTIMED: Final = Counter(
    "casewire_untimed_events_total", "Events that came without HQ's time.", ["topic"]
)
BATCH_RECORDS: Final = Histogram(
    "casewire_batch_records", "Records in a batch.", ["topic"],
    buckets=(1, 10, 100, 1000, 10_000),
)  # fmt: skip
#: Has no label, so that it is told as soon as it is registered.
INDEXED: Final = Counter(
    "casewire_indexed_events_total", "Events of cases that past moments can be told from.",
    registry=None,
)  # fmt: skip
LAST_EVENT: Final = Gauge(
    "casewire_last_event_timestamp_seconds",
    "When this process decoded the last event of a project space and kind, by its capture.",
    ["domain", "kind"],
)
DELIVERED: Final = Counter(
    "casewire_sink_events_total",
    "What a sink has passed of a partition, by how it ended: the sum is that of the offsets.",
    ["sink", "topic", "partition", "outcome"],
)
PASSED: Final = Counter(
    "casewire_sink_offsets_total",
    "Offsets of a partition that a sink has passed.",
    ["sink", "topic", "partition"],
)
RETRIES: Final = Counter(
    "casewire_sink_retries_total", "Writes tried again after a transient failure.", ["sink"]
)
WRITING: Final = Gauge(
    "casewire_sink_retrying", "1 while a sink waits for its target.", ["sink"]
)  # fmt: skip
WRITE_SECONDS: Final = Histogram(
    "casewire_sink_write_seconds", "How long a target took for a write, or to refuse it.", ["sink"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)  # fmt: skip
WRITE_RECORDS: Final = Histogram(
    "casewire_sink_write_records", "Records that were to be written at once.", ["sink"],
    buckets=(1, 10, 100, 1000, 10_000),
)  # fmt: skip
AGE: Final = Histogram(
    "casewire_sink_age_seconds", "Seconds from HQ's received-on to written.", ["sink"],
    buckets=(1, 2, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400),
)  # fmt: skip

#: What has a latest state, and what has none.
_JUDGED: Final = ("cases", "case-changes", "forms", "users", "locations")
_UNJUDGED: Final = ("form-stubs", "app-changes", "custom")


def begin_streams() -> None:
    """Have the counters of the streams role begin at 0: what only appears does not increase."""
    with contextlib.suppress(ValueError):  # a test has several workers in one process
        REGISTRY.register(INDEXED)
    for topic in (*_JUDGED, *_UNJUDGED):
        DECODED.labels(topic)
    for topic in _JUDGED:
        DOUBTFUL.labels(topic)
        UNTIMED.labels(topic)
        for outcome in get_args(Outcome):
            JUDGED.labels(topic, outcome)
    _begin_dead_letters(("decode", "state"))


def begin_sink(sink: str) -> None:
    """Have the counters of a sink begin at 0."""
    for each in (RETRIES, WRITING, WRITE_SECONDS, WRITE_RECORDS, AGE):
        each.labels(sink)
    _begin_dead_letters((f"sink:{sink}",))


def _begin_dead_letters(stages: Iterable[str]) -> None:
    for stage in stages:
        for cause in get_args(Cause):
            DEAD_LETTERS.labels(stage, cause)
