"""What became of a case or form at each sink, from the ledger and the topics that sinks read."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final, Literal, TypeAlias

from casewire.ledger import DELIVERIES, Ends, Source, add
from casewire.progress import Offsets, committed_offsets
from casewire.reading import read_topic
from casewire.settled import WRITTEN
from casewire.topics import admin
from schemas.delivery import EventDelivery
from schemas.partitioner import partition_of
from schemas.settings import KafkaSettings
from schemas.times import from_microseconds
from streams.delivery import SinkRecord
from streams.fence import version_of
from streams.records import header
from streams.replays import REPLAYS, TARGET

Of: TypeAlias = Literal["case", "form"]

_Place: TypeAlias = tuple[str, str, int, int]

#: The topics that sinks read, by what they are about.
_TOPICS: Final[Mapping[Of, Sequence[str]]] = {
    "case": ("case-state", "cases"),
    "form": ("form-state", "forms"),
}
WAITING: Final = "waiting"
UNTOLD: Final = "not told any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """How one version, or event, of a case or form ended at a sink.

    `at` is when the ledger told it, empty while nothing did; `version` is 0 for an event.
    """

    sink: str
    key: str
    version: int
    captured_at: str
    outcome: str
    at: str
    replayed: bool
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Passed:
    """A record that lies, or lay, on a topic that sinks read. `stage` is empty if for all."""

    key: str
    version: int
    captured_at: str
    topic: str
    partition: int
    offset: int
    stage: str = ""

    @property
    def place(self) -> _Place:
        return self.stage, self.topic, self.partition, self.offset


async def deliveries_of(
    kafka: KafkaSettings, sinks: Mapping[str, Sequence[str]], key: str, of: Of
) -> Sequence[Delivered]:
    """Return how each version of a case or form ended at each sink, by sink and in order.

    `key` is `domain/id`, or `/id` for whatever project space has it; `sinks` have their sources.
    """
    topics = [name for name in _TOPICS[of] if any(name in read for read in sinks.values())]
    found = await _read_passed(kafka, (*topics, REPLAYS), key)
    ledger = await _read_told(kafka, sinks, key, found)
    delivered: list[Delivered] = []
    async with admin(kafka) as client:
        for sink, sources in sinks.items():
            committed = await committed_offsets(client, kafka.group(f"sink-{sink}"))
            read = {kafka.topic(topic) for topic in (*sources, REPLAYS)}
            passed = [each for each in found.values() if each.topic in read]
            delivered += ended(sink, passed, ledger, committed)
    return delivered


async def _read_passed(
    kafka: KafkaSettings, topics: Iterable[str], key: str
) -> dict[_Place, Passed]:
    found = {}
    for topic in topics:
        async for record in read_topic(kafka, topic, _partition(kafka, key)):
            if _is_of(record, key):
                passed = _passed(record)
                found[passed.place] = passed
    return found


async def _read_told(
    kafka: KafkaSettings, sinks: Iterable[str], key: str, found: dict[_Place, Passed]
) -> Mapping[Source, Ends]:
    """Return what the ledger tells, and add to `found` what is compacted away meanwhile."""
    ledger: dict[Source, Ends] = defaultdict(Ends)
    for number in _ledger_partitions(kafka, sinks, _partition(kafka, key)):
        async for record in read_topic(kafka, DELIVERIES, number):
            if header(record.headers, "casewire-schema") == "batch-delivery/1":
                add(ledger, record)
            elif _is_of(record, key):
                add(ledger, record)
                told = _told_passed(record)
                if replace(told, stage="").place not in found:
                    found.setdefault(told.place, told)
    return ledger


def _partition(kafka: KafkaSettings, key: str) -> int | None:
    """Return the partition of a key, None if its project space is not known."""
    return None if key.startswith("/") else partition_of(key.encode(), kafka.partitions)


def ended(
    sink: str, passed: Iterable[Passed], ledger: Mapping[Source, Ends], committed: Offsets
) -> Iterator[Delivered]:
    """Yield how what a sink reads ended at it, the oldest version first."""
    stage = f"sink:{sink}"
    ours = [each for each in passed if each.stage in ("", stage)]
    # A replay of a version comes after the version itself.
    for each in sorted(ours, key=attrgetter("version", "captured_at", "stage", "offset")):
        ends = ledger.get(Source(stage, each.topic, each.partition), Ends())
        outcome, time_ms = _end(each.offset, ends)
        if not outcome:
            waits = each.offset >= committed.get((each.topic, each.partition), 0)
            outcome = WAITING if waits else UNTOLD
        yield Delivered(
            sink=sink,
            key=each.key,
            version=each.version,
            captured_at=each.captured_at,
            outcome=outcome,
            at=from_microseconds(time_ms * 1000) if time_ms else "",
            replayed=bool(each.stage) and each.topic.endswith(REPLAYS),
            topic=each.topic,
            partition=each.partition,
            offset=each.offset,
        )


def _end(offset: int, ends: Ends) -> tuple[str, int]:
    """Return how an offset ended, and when that was told first; empty and 0 if nothing tells."""
    if offset in ends.own:
        return ends.own[offset]
    times = [batch.time_ms for batch in ends.batches if batch.first <= offset <= batch.last]
    return (WRITTEN, min(times)) if times else ("", 0)


def _ledger_partitions(
    kafka: KafkaSettings, sinks: Iterable[str], partition: int | None
) -> Sequence[int]:
    """Return the ledger's partitions that tell of a partition; all of them if that is unknown."""
    if partition is None:
        return range(kafka.partitions)
    keys = (f"sink:{sink}/{partition}".encode() for sink in sinks)
    return sorted({partition, *(partition_of(key, kafka.partitions) for key in keys)})


def _is_of(record: SinkRecord, key: str) -> bool:
    domain, _, wanted = key.partition("/")
    own_domain, _, own = (record.key or b"").decode(errors="replace").partition("/")
    return own == wanted and domain in ("", own_domain)


def _passed(record: SinkRecord) -> Passed:
    return Passed(
        key=(record.key or b"").decode(),
        version=version_of(record.headers),
        captured_at=header(record.headers, "ce_time") or "",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        stage=header(record.headers, TARGET) or "",
    )


def _told_passed(record: SinkRecord) -> Passed:
    """Return what the ledger's own record of an event tells of it: it may be compacted away."""
    event = EventDelivery.from_json(record.value or b"")
    return Passed(
        key=(record.key or b"").decode(),
        version=event.version,
        captured_at=header(record.headers, "ce_time") or "",
        topic=event.topic,
        partition=event.partition,
        offset=event.offset,
        stage=event.stage,
    )
