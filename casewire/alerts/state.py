"""All that the alerts role knows, and what each record changes of it (pure)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import structlog

from casewire.alerts.desk import Desk
from casewire.alerts.reports import Target, came, of_letter, signs
from casewire.alerts.rhythms import SCHEMA as RHYTHM_SCHEMA, Rhythm, Rhythms
from casewire.alerts.troubles import Pace, Trouble, seconds
from schemas.alert import Alert
from schemas.dead_letter import DeadLetter
from schemas.delivery import BatchDelivery
from schemas.times import from_microseconds
from streams.records import Out, Record, about, header

#: What is older when it is read is history: the role did not run, or runs for the first time.
OLD_SECONDS: Final = 24 * 3600

_log = structlog.get_logger(__name__)


class TimedRecord(Record, Protocol):
    """A record with the time at which the broker appended it (milliseconds since 1970)."""

    @property
    def timestamp(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`targets`: the sinks by stage. `silence_hours`: 0 tells of no silence."""

    pace: Pace
    channels: Sequence[str]
    targets: Mapping[str, Target]
    silence_hours: int


class State:
    """What is wrong and who usually sends what, as records of four topics say.

    `decided`: people may have decided on dead letters since somebody looked.
    """

    def __init__(self, rules: Rules, saved: Iterable[Record] = ()) -> None:
        """Begin with what another one has left on `casewire.alert-state`."""
        troubles, rhythms = saved_state(saved)
        self.desk = Desk(rules.pace, rules.channels, {each.group: each for each in troubles})
        self.rhythms = Rhythms(rules.silence_hours, {each.key: each for each in rhythms})
        self.decided = True
        self._targets = rules.targets

    def retire(self, now: str) -> None:
        """Note that what concerns a sink which is not configured any more is over."""
        for trouble in list(self.desk.troubles.values()):
            if trouble.stage.startswith("sink:") and trouble.stage not in self._targets:
                self.desk.mended(trouble.group, now)

    def take(self, record: TimedRecord, now: str) -> None:
        """Take a record of the dead letters, of decisions on them, of alerts or deliveries."""
        at = from_microseconds(record.timestamp * 1000)
        schema = header(record.headers, "casewire-schema")
        value = record.value or b""
        try:
            if schema == "batch-delivery/1":
                self._delivered(BatchDelivery.from_json(value), at)
            elif schema == "dead-letter/1":
                letter = DeadLetter.from_json(value)
                self._failed(of_letter(letter, record, at, self._targets), now)
            elif schema == "dead-letter-state/1":
                self.decided = True
            elif schema == "alert/1":
                self._said(Alert.from_json(value), at, now)
        except (TypeError, ValueError):
            _log.warning("a record is nothing of ours", **about(record))

    def look(self, now: str, *, behind: bool) -> None:
        """Decide what is to be told. `behind`: what came is not all seen, silence means nothing."""
        if not behind:
            for report in self.rhythms.look(now):
                self.desk.report(report)
        self.desk.look(now)

    def changes(self) -> Sequence[Out]:
        """Return what has changed since the last call, for `casewire.alert-state`."""
        return [*self.desk.changes(), *self.rhythms.changes()]

    def _failed(self, report: Alert, now: str) -> None:
        if seconds(report.raised_at, now) < OLD_SECONDS:
            self.desk.report(report)

    def _said(self, alert: Alert, at: str, now: str) -> None:
        if alert.status == "muted":
            self.desk.mute(alert.group, alert.muted_until)
        elif alert.status == "reported":
            target = self._targets.get(alert.stage)
            address = target.address if target else alert.address
            self._failed(msgspec.structs.replace(alert, address=address, raised_at=at), now)

    def _delivered(self, batch: BatchDelivery, at: str) -> None:
        for sign in signs(batch):
            self.desk.passed(sign, at)
        for domain, kind in came(batch):
            self.rhythms.came(domain, kind, at)


def saved_state(saved: Iterable[Record]) -> tuple[Sequence[Trouble], Sequence[Rhythm]]:
    """Return what records of `casewire.alert-state` hold: of each key the last one."""
    latest = {record.key: record for record in saved}
    troubles, rhythms = [], []
    for record in latest.values():
        if header(record.headers, "casewire-schema") == RHYTHM_SCHEMA:
            rhythms.append(Rhythm.from_json(record.value or b""))
        else:
            troubles.append(Trouble.from_json(record.value or b""))
    return troubles, rhythms
