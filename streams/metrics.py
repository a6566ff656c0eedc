"""What the streams role and the sinks count. One visible table of names."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

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
INDEXED: Final = Counter(
    "casewire_indexed_events_total", "Events of cases that past moments can be told from."
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
