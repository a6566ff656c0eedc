"""What other roles' records say of troubles: dead letters as reports, the ledger as signs of life.

All of it is pure. No value of the data gets any further than here: ids, classes, codes and paths.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from casewire.alerts.troubles import Trouble
from schemas.alert import Alert, group_of
from schemas.dead_letter import DeadLetter
from schemas.delivery import BatchDelivery
from schemas.topics import TOPICS
from streams.flood import OTHER, forwarder_kind
from streams.records import Record, header
from streams.replays import REPLAYS

#: These ends say that the stage works: the others did not get as far as the target.
_PASSED: Final = frozenset({"applied", "written", "stale", "duplicate"})
#: Topics whose events HQ sends: a form's case blocks are not sent, they follow from it.
_SENT: Final = frozenset({"cases", "forms", "users", "locations"})
#: Targets that are of one kind of event; what is replayed is of any.
_KINDS: Final = frozenset({*TOPICS, OTHER} - {REPLAYS})
_NOUNS: Final[Mapping[str, str]] = {
    "cases": "case", "case-state": "case", "case-changes": "case",
    "forms": "form", "form-state": "form",
    "users": "user", "locations": "location",
}  # fmt: skip
_LONGEST_PATH: Final = 200
#: The stage and cause of a silence, of which no other role reports.
INGRESS: Final = "ingress"
SILENCE: Final = "silence"


@dataclass(frozen=True, slots=True)
class Target:
    """A sink as alerts tell of it: where it writes to, and whether its words may be repeated."""

    address: str
    errors_are_safe: bool


@dataclass(frozen=True, slots=True)
class Sign:
    """Something of a project space and a kind passed a stage."""

    stage: str
    domain: str
    kind: str

    def answers(self, alert: Alert | Trouble) -> bool:
        """Whether it says that a trouble may be over."""
        if self.stage != alert.stage or alert.domain not in ("", self.domain):
            return False
        kind = alert.target.partition(" (")[0]
        return kind not in _KINDS or kind == self.kind


def of_letter(letter: DeadLetter, record: Record, at: str, targets: Mapping[str, Target]) -> Alert:
    """Return the report that a dead letter makes. `record` is its own, `targets` by stage."""
    target = targets.get(letter.stage)
    topic = short_name(letter.original["topic"])
    kind = forwarder_kind(record.headers) if letter.stage == "decode" else topic
    subject = header(record.headers, "ce_subject") or ""
    known = subject and subject != letter.captured_id
    path = letter.path[:_LONGEST_PATH]
    return Alert(
        group=group_of(letter.domain, letter.stage, letter.cause, kind),
        domain=letter.domain,
        stage=letter.stage,
        cause=letter.cause,
        target=kind,
        text=f"{letter.explanation} (at {path})" if path else letter.explanation,
        captured_ids=[letter.captured_id],
        raised_at=at,
        address=target.address if target else header(record.headers, "casewire-path") or "",
        subjects=[f"{_NOUNS.get(kind, 'event')} {subject}"] if known else [],
        target_error=letter.target_error if target and target.errors_are_safe else "",
    )


def of_silence(domain: str, kind: str, last: str, at: str) -> Alert:
    """Return the report that a project space has stopped sending. `last`: when something came."""
    return Alert(
        group=group_of(domain, INGRESS, SILENCE, kind),
        domain=domain,
        stage=INGRESS,
        cause=SILENCE,
        target=kind,
        text=f"no {kind} have come since {last}, at times when they usually do",
        captured_ids=[],
        raised_at=at,
        address=f"/api/v1/in/{domain}",
    )


def signs(batch: BatchDelivery) -> Iterator[Sign]:
    """Yield what a batch of the ledger says has passed."""
    kind = short_name(batch.topic)
    for domain, ends in batch.domains.items():
        if _PASSED.isdisjoint(ends):
            continue
        yield Sign(batch.stage, domain, kind)
        if batch.stage == "state" and kind in _SENT:
            yield Sign("decode", domain, kind if kind in _DECODED else OTHER)
            yield Sign(INGRESS, domain, kind)


#: What `forwarder_kind` tells apart.
_DECODED: Final = frozenset({"cases", "forms"})


def came(batch: BatchDelivery) -> Iterator[tuple[str, str]]:
    """Yield domain and kind of what HQ has sent, as a batch of the ledger says."""
    kind = short_name(batch.topic)
    if batch.stage == "state" and kind in _SENT:
        for domain in batch.domains:
            yield domain, kind


@cache
def short_name(topic: str) -> str:
    """Return a topic's name without prefix, whatever that is; the whole one if it is not ours."""
    return max((name for name in TOPICS if topic.endswith(name)), key=len, default=topic)
