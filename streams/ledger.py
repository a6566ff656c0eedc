"""The records of `casewire.deliveries` for one batch."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from schemas.delivery import BatchDelivery, EventDelivery
from streams.fence import version_of
from streams.records import Out, Record, header

EVENT_TYPE: Final = b"casewire.delivery"


class Ledger:
    """Collects how the events of a batch ended. `written` is the end state without a record."""

    def __init__(self, stage: str, written: str) -> None:
        self._stage = stage
        self._written = written
        self._ends: list[tuple[Record, str]] = []

    def add(self, record: Record, outcome: str) -> None:
        self._ends.append((record, outcome))

    def records(self) -> Sequence[Out]:
        """Return the batch's record and those of the events that were not written."""
        first, last = self._ends[0][0], self._ends[-1][0]
        batch = BatchDelivery(
            stage=self._stage,
            topic=first.topic,
            partition=first.partition,
            first_offset=first.offset,
            last_offset=last.offset,
            counts=Counter([outcome for _, outcome in self._ends]),
            domains=self._domains(),
        )
        key = f"{self._stage}/{first.partition}".encode()
        headers = [("ce_specversion", b"1.0"), ("ce_type", EVENT_TYPE)]
        schema = ("casewire-schema", b"batch-delivery/1")
        out = [Out(key, batch.to_json(), [*headers, schema])]
        out.extend(self._event(*end) for end in self._ends if end[1] != self._written)
        return out

    def _domains(self) -> Mapping[str, Mapping[str, int]]:
        ends = Counter([((r.key or b"").partition(b"/")[0], outcome) for r, outcome in self._ends])
        domains: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for (domain, outcome), count in ends.items():
            domains[domain.decode(errors="replace")][outcome] += count
        return domains

    def _event(self, record: Record, outcome: str) -> Out:
        told = [*record.headers]  # they may be read anew by each who asks
        event_id = header(told, "ce_id") or ""
        delivery = EventDelivery(
            stage=self._stage,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            event_id=event_id,
            outcome=outcome,
            version=version_of(told),
        )
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_type", EVENT_TYPE),
            ("casewire-schema", b"event-delivery/1"),
            *(item for item in told if item[0] in _KEPT_HEADERS),
        ]
        return Out(record.key or b"", delivery.to_json(), headers)


_KEPT_HEADERS: Final = frozenset(
    {"ce_source", "ce_time", "ce_subject", "casewire-domain", "casewire-captured-id"}
)
