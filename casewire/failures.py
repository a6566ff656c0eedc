"""What is open now: dead letters by cause and alerts, record by record as they come (pure)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from casewire.alerts.state import saved_state
from casewire.alerts.troubles import Trouble
from casewire.dead_letters import letter_of
from schemas.dead_letter import DeadLetter, DeadLetterState
from streams.records import Record

Status: TypeAlias = Literal["reported", "opened", "updated", "muted"]


@dataclass(frozen=True, slots=True)
class Cause:
    """Open dead letters of a stage and cause; times are those of failing."""

    stage: str
    cause: str
    count: int
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """A trouble that is not over. `reported`: nobody was told of it yet.

    `muted_until` is empty unless it is muted. `text` holds no value of the data.
    """

    group: str
    stage: str
    cause: str
    status: Status
    since: str
    last: str
    count: int
    text: str
    muted_until: str


@dataclass(frozen=True, slots=True)
class _Letter:
    place: tuple[int, int]
    stage: str
    cause: str
    failed_at: str


@dataclass(slots=True)
class Failures:
    """Takes the records of three topics, in order within a partition; any of them twice is once.

    Of dead letters with one id the last counts. `_closed` has the offset up to which an id's are.
    """

    _letters: dict[str, _Letter] = field(default_factory=dict)
    _closed: dict[str, int] = field(default_factory=dict)
    _troubles: dict[str, Trouble] = field(default_factory=dict)

    def take_letter(self, record: Record) -> None:
        """Take a record of `casewire.dead-letters`."""
        letter = letter_of(record, DeadLetter.from_json(record.value or b""))
        group = letter.group
        self._letters[letter.id] = _Letter(letter.place, group.stage, group.cause, letter.failed_at)

    def take_state(self, record: Record) -> None:
        """Take a record of `casewire.dead-letter-state`."""
        if record.key is not None and record.value is not None:
            state = DeadLetterState.from_json(record.value)
            self._closed[record.key.decode()] = state.offset

    def take_alert(self, record: Record) -> None:
        """Take a record of `casewire.alert-state`."""
        for trouble in saved_state([record])[0]:
            self._troubles[trouble.group] = trouble

    def forget(self, kept: Mapping[int, int]) -> None:
        """Forget the dead letters that retention has deleted: `kept` has each partition's first."""
        gone = [id_ for id_, each in self._letters.items() if each.place[1] < kept[each.place[0]]]
        for id_ in gone:
            del self._letters[id_]
            self._closed.pop(id_, None)

    def causes(self) -> Sequence[Cause]:
        """Return the open dead letters by stage and cause, the most frequent first."""
        times: dict[tuple[str, str], list[str]] = defaultdict(list)
        for each in self._open():
            times[each.stage, each.cause].append(each.failed_at)
        causes = [
            Cause(stage, cause, len(failed), min(failed), max(failed))
            for (stage, cause), failed in times.items()
        ]
        return sorted(causes, key=lambda cause: (-cause.count, cause.stage, cause.cause))

    def alerts(self, now: str) -> Sequence[OpenAlert]:
        """Return the troubles that are not over at a time, the newest first."""
        opened = [_alert(each, now) for each in self._troubles.values() if each.open]
        return sorted(opened, key=lambda alert: alert.since, reverse=True)

    def _open(self) -> Iterator[_Letter]:
        for id_, letter in self._letters.items():
            if self._closed.get(id_, -1) < letter.place[1]:
                yield letter


def _alert(trouble: Trouble, now: str) -> OpenAlert:
    muted = now < trouble.muted_until
    # One that is open anew has still what was told of it before.
    told: Status = trouble.told if trouble.told in ("opened", "updated") else "reported"
    return OpenAlert(
        group=trouble.group,
        stage=trouble.stage,
        cause=trouble.cause,
        status="muted" if muted else told,
        since=trouble.since,
        last=trouble.last,
        count=trouble.count,
        text=trouble.text,
        muted_until=trouble.muted_until if muted else "",
    )
