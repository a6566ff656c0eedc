"""The limit on dead-lettering: when nearly everything of a kind fails, the worker stops (pure).

A bad deploy would empty a topic into the dead letters; stopped, with nothing acknowledged, it goes
on where it was when the deploy is mended. Bad data must not stop it, so:

- What was a dead letter before and is replayed says nothing when it fails again.
- Project spaces are counted, not events: each by its latest events of the kind. One that sends
  nothing but nonsense is one, however much it sends, and the others that pass speak against it.
- What fails with `unexpected` is a fault of ours, whoever sent it. What is refused with any other
  cause may be one sender's fault, or a check of ours that is wrong: it counts where several
  project spaces have it. That they all send nonsense of one kind at once is unlikely.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from schemas.alert import Alert, group_of
from schemas.envelope import Headers
from schemas.errors import Cause, Rejection, WorkerError
from streams.records import Record, captured_id, header
from streams.replays import attempts_of

#: A project space's latest events of a kind that count.
WINDOW: Final = 100
#: So many events must have failed, and so many of a project space for it to count as failing.
LEAST: Final = 50
LEAST_OF_DOMAIN: Final = 10
#: From so many project spaces on, causes other than `unexpected` count.
SEVERAL: Final = 3
SHOWN_IDS: Final = 10

Ends: TypeAlias = Sequence[Cause | None]
"""How the latest events of a project space ended; None where they passed."""

Failed: TypeAlias = Sequence[tuple[Record, Rejection]]


class FloodError(WorkerError):
    """Nearly everything of a kind fails: the worker stops before the dead letters are sent."""


@dataclass(frozen=True, slots=True)
class Flood:
    """Which kind of event fails, for which project spaces, by which cause above all."""

    stage: str
    kind: str
    domains: Sequence[str]
    cause: Cause
    failed: int
    seen: int
    captured_ids: Sequence[str]

    @property
    def text(self) -> str:
        spaces = (
            "1 project space" if len(self.domains) == 1 else f"{len(self.domains)} project spaces"
        )
        return (
            f"nearly everything of {self.kind} fails at {self.stage}: {self.failed} of the latest "
            f"{self.seen} events of {spaces}, above all with {self.cause}; none of this batch "
            "became a dead letter, and nothing is lost: mend or take back what was deployed last, "
            "and start again, or set [streams] dead_letter_limit = 1 to go on nevertheless"
        )


class Gate:
    """Watches how the events of a stage end. `limit`: the share that may not fail; 1 is off."""

    def __init__(self, stage: str, kind_of: Callable[[Record], str], limit: float) -> None:
        self.stage = stage
        self._kind_of = kind_of
        self._limit = limit
        self._ends: dict[str, dict[str, deque[Cause | None]]] = defaultdict(_windows)

    def look(self, records: Sequence[Record], failed: Failed) -> Flood | None:
        """Note how a batch's records ended; return what must stop the worker, None if nothing."""
        causes = {record.offset: rejection.cause for record, rejection in failed}
        known = {record.offset for record, _ in failed if attempts_of(record) > 1}
        for record in records:
            if record.offset in known:
                continue
            ends = self._ends[self._kind_of(record)]
            ends[domain_of(record)].append(causes.get(record.offset))
        for kind in dict.fromkeys(self._kind_of(record) for record, _ in failed):
            domains = failing(self._ends[kind], self._limit)
            if domains:
                return self._flood(kind, domains, failed)
        return None

    def _flood(self, kind: str, domains: Sequence[str], failed: Failed) -> Flood:
        ends = [end for domain in domains for end in self._ends[kind][domain]]
        causes = Counter(end for end in ends if end is not None)
        of_kind = [record for record, _ in failed if self._kind_of(record) == kind]
        return Flood(
            stage=self.stage,
            kind=kind,
            domains=domains,
            cause=causes.most_common(1)[0][0],
            failed=causes.total(),
            seen=len(ends),
            captured_ids=[captured_id(record) for record in of_kind[:SHOWN_IDS]],
        )


def _windows() -> dict[str, deque[Cause | None]]:
    return defaultdict(lambda: deque(maxlen=WINDOW))


def failing(windows: Mapping[str, Ends], limit: float) -> Sequence[str]:
    """Return the project spaces that fail, if nearly all that say anything do; else none."""
    if limit >= 1:
        return ()
    telling = {
        domain: ends
        for domain, ends in windows.items()
        if len(ends) >= LEAST_OF_DOMAIN or None in ends
    }
    refused = [d for d, ends in telling.items() if _failed(ends) >= limit * len(ends)]
    if len(refused) < SEVERAL:
        refused = [d for d in refused if telling[d].count("unexpected") >= limit * len(telling[d])]
    enough = sum(_failed(telling[domain]) for domain in refused) >= LEAST
    return refused if enough and len(refused) >= limit * len(telling) else ()


def _failed(ends: Ends) -> int:
    return len(ends) - ends.count(None)


def domain_of(record: Record) -> str:
    """Return the project space by the key (`domain/id`); a captured event's does not tell it."""
    domain, slash, _ = (record.key or b"").partition(b"/")
    if slash:
        return domain.decode(errors="replace")
    return header(record.headers, "casewire-domain") or ""


def captured_kind(record: Record) -> str:
    """Return what kind of event a captured record is by its headers: it may be unreadable."""
    kind = forwarder_kind(record.headers)
    markup = (record.value or b"")[:1] == b"<"
    return kind if kind == OTHER else f"{kind} ({'XML' if markup else 'JSON'})"


def forwarder_kind(headers: Headers) -> str:
    """Return which kind of HQ's forwarders sent a request: cases, forms, or another one."""
    for name, _ in headers:
        if name in _KINDS:
            return _KINDS[name]
    return OTHER


OTHER: Final = "other events"
#: HQ's headers that only one kind of forwarder sends (protocol.md §1.1).
_KINDS: Final[Mapping[str, str]] = {"server-modified-on": "cases", "received-on": "forms"}


def alert(flood: Flood, *, raised_at: str) -> Alert:
    """Return what to report on `casewire.alerts`; `raised_at` is a canonical time."""
    domain = flood.domains[0] if len(flood.domains) == 1 else ""
    return Alert(
        group=group_of(domain, flood.stage, flood.cause, flood.kind),
        domain=domain,
        stage=flood.stage,
        cause=flood.cause,
        target=flood.kind,
        text=flood.text,
        captured_ids=flood.captured_ids,
        raised_at=raised_at,
    )
