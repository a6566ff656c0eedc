"""The sums of contract §6, counted from the topics in distinct event ids.

captured = decoded + dead; events of what has a latest state = applied + stale + duplicate, and so
are case blocks (applied: the state says it, or by its doubt that it lacks it; stale: a newer
version of the form stands, or a snapshot that knows the form). They hold after any crash, since the
topics are all that is asked. What retention has deleted is not counted. The third sum, that of the
sinks, is in casewire/settled.py.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from casewire.ledger import Covered, Ends, Ledger, Source, read_ledger
from casewire.reading import read_topic
from casewire.settled import Settled, count_settled
from schemas.dead_letter import DeadLetter
from schemas.settings import KafkaSettings
from streams.records import captured_id, header

TYPED_TOPICS: Final = (
    "cases", "forms", "form-stubs", "app-changes", "users", "locations", "custom",
)  # fmt: skip
#: A case block is a second event of its form's capture: it counts as judged, not as typed.
JUDGED_TOPICS: Final = ("cases", "case-changes", "forms", "users", "locations")
#: An event that was read twice counts by the first of these that it ever ended as.
_STRONGEST_FIRST: Final = ("applied", "stale", "duplicate", "dead")


@dataclass(frozen=True, slots=True)
class Judged:
    """How the events of a topic ended. `unjudged` are the ids of those not judged yet."""

    events: int
    outcomes: Mapping[str, int]
    unjudged: Sequence[str]


@dataclass(frozen=True, slots=True)
class Sums:
    """Numbers of distinct events. `lost`: captured, but neither typed nor a dead letter.

    One that was a dead letter and came through when it was replayed is not dead.
    """

    captured: int
    typed: Mapping[str, int]
    dead: Mapping[str, int]
    lost: Sequence[str]
    judged: Mapping[str, Judged]
    sinks: Sequence[Settled] = ()

    @property
    def match(self) -> bool:
        """Whether everything captured is accounted for."""
        left = [*(each.unjudged for each in self.judged.values())]
        return not self.lost and not any(left) and not any(each.unsettled for each in self.sinks)


async def count_sums(
    kafka: KafkaSettings, sinks: Mapping[str, Collection[str]] = MappingProxyType({})
) -> Sums:
    """Read the topics and count. Takes as long as reading them does.

    `sinks` are the sources (short names) of those whose sums are wanted too.
    """
    captured = {captured_id(record) async for record in read_topic(kafka, "captured")}
    typed: dict[str, int] = {}
    accounted: set[str] = set()
    for topic in TYPED_TOPICS:
        ids = {captured_id(record) async for record in read_topic(kafka, topic)}
        typed[topic] = len(ids)
        accounted |= ids
    causes = await _dead_by_id(kafka)
    ledger = await read_ledger(kafka)
    return Sums(
        captured=len(captured),
        typed={topic: count for topic, count in typed.items() if count},
        dead=Counter(cause for event, cause in causes.items() if event not in accounted),
        lost=sorted(captured - accounted - causes.keys()),
        judged={topic: await _judged(kafka, topic, ledger) for topic in JUDGED_TOPICS},
        sinks=await count_settled(kafka, sinks),
    )


async def _dead_by_id(kafka: KafkaSettings) -> Mapping[str, str]:
    causes = {}
    async for record in read_topic(kafka, "dead-letters"):
        letter = DeadLetter.from_json(record.value or b"")
        if letter.stage == "decode":
            causes[letter.captured_id] = letter.cause
    return causes


async def _judged(kafka: KafkaSettings, topic: str, ledger: Ledger) -> Judged:
    by_id: dict[str, str] = {}
    told: dict[int, tuple[Ends, Covered]] = {}
    async for record in read_topic(kafka, topic):
        event_id = header(record.headers, "ce_id") or f"{record.partition}/{record.offset}"
        if record.partition not in told:
            ends = ledger.get(Source("state", record.topic, record.partition), Ends())
            told[record.partition] = ends, ends.covered()
        ends, covered = told[record.partition]
        own = ends.own.get(record.offset)
        outcome = own.outcome if own else "applied" if record.offset in covered else ""
        by_id[event_id] = _stronger(by_id.get(event_id, ""), outcome)
    outcomes = Counter(outcome for outcome in by_id.values() if outcome)
    unjudged = sorted(event_id for event_id, outcome in by_id.items() if not outcome)
    return Judged(len(by_id), outcomes, unjudged)


def _stronger(one: str, other: str) -> str:
    known = [outcome for outcome in _STRONGEST_FIRST if outcome in (one, other)]
    return known[0] if known else ""
