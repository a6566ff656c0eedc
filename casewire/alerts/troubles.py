"""What is wrong at the moment, and what of it people are to be told, and when (pure).

All failures of one domain, stage, cause and target are one trouble. It opens with the first, and is
over when nothing has failed for an interval, and since the last failure either something of the
same kind has passed or nothing of it is left: its dead letters are all replayed or discarded,
nothing waits for the worker or target any more, or the sink is not configured any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

import msgspec

from schemas.alert import Alert
from schemas.times import to_microseconds
from schemas.values import Value

SCHEMA: Final = "alert-state/1"
SHOWN_IDS: Final = 10
_SECOND: Final = 1_000_000
#: A trouble that lasts is told of less and less often, but once a day.
_LONGEST_SECONDS: Final = 86_400.0

Told: TypeAlias = Literal["opened", "updated", "recovered"]


@dataclass(frozen=True, slots=True)
class Pace:
    """How often people are told, in seconds.

    `interval`: no trouble is told of more often. `gather`: how long a new one waits for more of
    its kind, so that its first message says more than one id.
    """

    interval: float
    gather: float = 10


class Trouble(Value, frozen=True, kw_only=True):
    """The state of an alert's group on `casewire.alert-state`. Times are canonical or empty.

    `since` and `last` are the first and the latest failure, `passed` is when something of the same
    kind last passed, `mended` when nothing of it was left. `told`, `told_at` and `told_count` are
    of the latest message, `updates` counts those since it was opened. `unsent` are the channels
    that have not taken that message yet.
    """

    group: str
    domain: str
    stage: str
    cause: str
    target: str
    address: str
    text: str
    target_error: str
    open: bool
    since: str
    last: str
    count: int
    subjects: Sequence[str]
    captured_ids: Sequence[str]
    passed: str = ""
    mended: str = ""
    told: Told | Literal[""] = ""
    told_at: str = ""
    told_count: int = 0
    updates: int = 0
    muted_until: str = ""
    unsent: Sequence[str] = ()

    @classmethod
    def of(cls, report: Alert) -> Self:
        """Return a trouble that nobody was told of, from the first report of it."""
        return cls(
            group=report.group,
            domain=report.domain,
            stage=report.stage,
            cause=report.cause,
            target=report.target,
            address=report.address,
            text=report.text,
            target_error=report.target_error,
            open=True,
            since=report.raised_at,
            last=report.raised_at,
            count=report.count,
            subjects=_shown(report.subjects),
            captured_ids=_shown(report.captured_ids),
        )

    def alert(self, raised_at: str) -> Alert:
        """Return what `casewire.alerts` says of it: the latest message as an event."""
        return Alert(
            group=self.group,
            domain=self.domain,
            stage=self.stage,
            cause=self.cause,
            target=self.target,
            text=self.text,
            captured_ids=self.captured_ids,
            raised_at=raised_at,
            status=self.told or "reported",
            address=self.address,
            subjects=self.subjects,
            count=self.count,
            since=self.since,
            target_error=self.target_error,
            muted_until=self.muted_until,
        )


def failed(held: Trouble | None, report: Alert) -> Trouble:
    """Return the trouble with one more report of it; one that was over opens anew."""
    new = Trouble.of(report)
    if held is None:
        return new
    if not held.open:
        return msgspec.structs.replace(
            new,
            passed=held.passed,
            told=held.told,
            told_at=held.told_at,
            muted_until=held.muted_until,
        )
    return msgspec.structs.replace(
        held,
        text=new.text,
        target_error=new.target_error,
        address=new.address,
        since=min(held.since, new.since),
        last=max(held.last, new.last),
        count=held.count + new.count,
        subjects=_shown([*held.subjects, *new.subjects]),
        captured_ids=_shown([*held.captured_ids, *new.captured_ids]),
    )


def passed(held: Trouble, at: str) -> Trouble:
    """Return the trouble with the news that something of its kind passed."""
    return msgspec.structs.replace(held, passed=max(held.passed, at))


def mended(held: Trouble, at: str) -> Trouble:
    """Return the trouble with the news that nothing of it is left."""
    return msgspec.structs.replace(held, mended=max(held.mended, at))


def muted(held: Trouble, until: str) -> Trouble:
    """Return the trouble that is told of no more before `until`."""
    return msgspec.structs.replace(held, muted_until=until)


def at_rest(held: Trouble, now: str, pace: Pace) -> Trouble:
    """Return the trouble as over if it is, with the time and the count of its failures kept."""
    works = max(held.passed, held.mended) > held.last
    over = held.open and works and seconds(held.last, now) >= pace.interval
    return msgspec.structs.replace(held, open=False) if over else held


def due(held: Trouble, now: str, pace: Pace) -> Told | None:
    """Return what people are to be told of a trouble now, None if nothing."""
    if now < held.muted_until:
        return None
    since_told = seconds(held.told_at, now) if held.told_at else _LONGEST_SECONDS
    if since_told < pace.interval:
        return None
    if held.told in ("", "recovered"):
        ready = held.open and seconds(held.since, now) >= pace.gather
        return "opened" if ready else None
    if not held.open:
        return "recovered"
    rests = min(pace.interval * 2**held.updates, _LONGEST_SECONDS)
    return "updated" if held.count > held.told_count and since_told >= rests else None


def told(held: Trouble, what: Told, now: str, channels: Sequence[str]) -> Trouble:
    """Return the trouble as people are told of it; `channels` have yet to take the message."""
    return msgspec.structs.replace(
        held,
        told=what,
        told_at=now,
        told_count=held.count,
        updates=held.updates + 1 if what == "updated" else 0,
        unsent=channels,
    )


def sent(held: Trouble, channel: str) -> Trouble:
    """Return the trouble with its latest message taken by a channel."""
    return msgspec.structs.replace(held, unsent=[each for each in held.unsent if each != channel])


def seconds(earlier: str, later: str) -> float:
    """Return the seconds between two canonical times."""
    return (to_microseconds(later) - to_microseconds(earlier)) / _SECOND


def _shown(ids: Sequence[str]) -> Sequence[str]:
    return list(dict.fromkeys(ids))[:SHOWN_IDS]
