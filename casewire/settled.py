"""The third sum of contract §6: how all offsets ended that a sink has passed.

Offsets passed = written + superseded + stale + excluded + dead + compacted away; and on `replays`
those that were for others. Counted from the topics in distinct offsets, so that work which a crash
has done twice counts once.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from casewire.ledger import DELIVERIES, Ends, Ledger, Source, read_ledger
from casewire.progress import committed_offsets, first_offsets
from casewire.reading import offsets_since, read_topic
from casewire.topics import admin
from schemas.partitioner import partition_of
from schemas.settings import KafkaSettings
from streams.replays import REPLAYS, aimed_at, is_replay

COMPACTED: Final = "compacted away"
FOR_OTHERS: Final = "for others"
WRITTEN: Final = "written"


@dataclass(frozen=True, slots=True)
class Settled:
    """How `passed` offsets of a source ended. `unsettled` are those of whose end nobody tells."""

    source: Source
    passed: int
    ends: Mapping[str, int]
    unsettled: Sequence[int]


@dataclass(slots=True)
class _Found:
    """What lies on a source now, of the offsets that were passed."""

    ours: list[int] = field(default_factory=list)
    others: int = 0
    earliest_ms: int | None = None


async def count_settled(
    kafka: KafkaSettings, sinks: Mapping[str, Collection[str]], latest: int | None = None
) -> Sequence[Settled]:
    """Count for each sink and partition of its sources (short names, `replays` is added).

    `latest`: look at so many of each partition's offsets only, the latest ones. What the ledger's
    retention has deleted is not counted.
    """
    spans: dict[Source, range] = {}
    for name, sources in sinks.items():
        topics = [kafka.topic(topic) for topic in (*sources, REPLAYS)]
        spans |= await _spans(kafka, name, topics, latest)
    found: dict[Source, _Found] = {source: _Found() for source in spans}
    for stage, topic in {(source.stage, source.topic) for source in spans}:
        await _look(kafka, stage, topic, spans, found)
    ledger, kept_since = await _ledger(kafka, latest, found)
    counted = []
    for source, span in spans.items():
        ends = ledger.get(source, Ends())
        key = f"{source.stage}/{source.partition}".encode()
        if kept_since[partition_of(key, kafka.partitions)] and latest is None:
            told = [batch.first for batch in ends.batches]
            span = range(max(span.start, min(told, default=span.stop)), span.stop)  # noqa: PLW2901
        counted.append(settled(source, span, found[source].ours, found[source].others, ends))
    return counted


def settled(source: Source, span: range, ours: Collection[int], others: int, ends: Ends) -> Settled:
    """Count the offsets of a span: `ours` lie on the topic still, `others` are for other sinks."""
    covered = ends.covered()
    counts: Counter[str] = Counter()
    unsettled = []
    for offset in ours:
        if offset not in span:
            continue
        if offset in ends.own:
            counts[ends.own[offset].outcome] += 1
        elif offset in covered:
            counts[WRITTEN] += 1
        else:
            unsettled.append(offset)
    kept = frozenset(ours)
    for offset, told in ends.own.items():
        if offset in span and offset not in kept:
            counts[told.outcome] += 1
    counts[FOR_OTHERS] = others
    counts[COMPACTED] = len(span) - counts.total() - len(unsettled)
    return Settled(source, len(span), +counts, unsettled)


async def _spans(
    kafka: KafkaSettings, sink: str, topics: Sequence[str], latest: int | None
) -> Mapping[Source, range]:
    """Return the offsets that a sink has passed, by source."""
    starts = await first_offsets(kafka, topics)
    async with admin(kafka) as client:
        committed = await committed_offsets(client, kafka.group(f"sink-{sink}"))
    spans = {}
    for (topic, partition), start in starts.items():
        stop = max(start, committed.get((topic, partition), 0))
        first = start if latest is None else max(start, stop - latest)
        spans[Source(f"sink:{sink}", topic, partition)] = range(first, stop)
    return spans


async def _look(
    kafka: KafkaSettings,
    stage: str,
    topic: str,
    spans: Mapping[Source, range],
    found: Mapping[Source, _Found],
) -> None:
    since = {
        source.partition: span.start
        for source, span in spans.items()
        if (source.stage, source.topic) == (stage, topic)
    }
    async for record in read_topic(kafka, kafka.short(topic), since=since):
        source = Source(stage, topic, record.partition)
        if record.offset not in spans[source]:
            continue
        at = found[source]
        at.earliest_ms = min(record.timestamp, at.earliest_ms or record.timestamp)
        if is_replay(record) and not aimed_at(stage, [record]):
            at.others += 1
        else:
            at.ours.append(record.offset)


async def _ledger(
    kafka: KafkaSettings, latest: int | None, found: Mapping[Source, _Found]
) -> tuple[Ledger, Mapping[int, int]]:
    """Return the ledger, and the first offset that is kept of each of its partitions."""
    starts = await first_offsets(kafka, [kafka.topic(DELIVERIES)])
    kept_since = {partition: offset for (_, partition), offset in starts.items()}
    if latest is None:
        return await read_ledger(kafka), kept_since
    times = [each.earliest_ms for each in found.values() if each.earliest_ms is not None]
    if not times:
        return defaultdict(Ends), kept_since
    # An offset's end is told after the record is there, and both times are the broker's.
    return await read_ledger(kafka, await offsets_since(kafka, DELIVERIES, min(times))), kept_since
