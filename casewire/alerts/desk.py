"""Everything that is wrong, kept up to date report by report (pure)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from casewire.alerts import troubles
from casewire.alerts.reports import Sign
from casewire.alerts.troubles import Pace, Trouble
from schemas.alert import Alert
from streams.records import Out


@dataclass(slots=True)
class Desk:
    """Takes reports and the time; gives the records and messages that follow.

    Work done again after a crash counts failures twice: a count is a measure, not a sum.
    """

    pace: Pace
    channels: Sequence[str]
    troubles: dict[str, Trouble] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)
    _told: list[Alert] = field(default_factory=list)

    def report(self, report: Alert) -> None:
        """Take the report of a failure."""
        self._put(troubles.failed(self.troubles.get(report.group), report))

    def passed(self, sign: Sign, at: str) -> None:
        """Take a sign that something works."""
        for trouble in list(self.troubles.values()):
            # One sign since the last failure is enough.
            if trouble.open and trouble.passed <= trouble.last and sign.answers(trouble):
                self._put(troubles.passed(trouble, at))

    def mended(self, group: str, at: str) -> None:
        """Take the news that nothing of a trouble is left."""
        trouble = self.troubles.get(group)
        if trouble is not None and trouble.open and trouble.mended <= trouble.last:
            self._put(troubles.mended(trouble, at))

    def mute(self, group: str, until: str) -> None:
        """Tell nobody of a trouble before a time; of one that is unknown nothing is known."""
        if group in self.troubles:
            self._put(troubles.muted(self.troubles[group], until))

    def look(self, now: str) -> None:
        """Decide what is over and what is to be told."""
        for held in list(self.troubles.values()):
            trouble = troubles.at_rest(held, now, self.pace)
            what = troubles.due(trouble, now, self.pace)
            if what is not None:
                trouble = troubles.told(trouble, what, now, self.channels)
                self._told.append(trouble.alert(now))
            if trouble is not held:
                self._put(trouble)

    def unsent(self, channel: str) -> Sequence[Trouble]:
        """Return the troubles whose latest message a channel has not taken yet."""
        return [each for each in self.troubles.values() if channel in each.unsent]

    def sent(self, channel: str, told: Iterable[Trouble]) -> None:
        """Note that a channel took a message that told of these troubles."""
        for each in told:
            held = self.troubles[each.group]
            if held.told_at == each.told_at:
                self._put(troubles.sent(held, channel))

    def news(self) -> Sequence[Alert]:
        """Return what was decided to be told since the last call, for `casewire.alerts`."""
        told, self._told = self._told, []
        return told

    def changes(self) -> Sequence[Out]:
        """Return what has changed since the last call, for `casewire.alert-state`."""
        changed, self._changed = self._changed, set()
        headers = [("casewire-schema", troubles.SCHEMA.encode())]
        return [
            Out(group.encode(), self.troubles[group].to_json(), headers)
            for group in sorted(changed)
        ]

    def _put(self, trouble: Trouble) -> None:
        self.troubles[trouble.group] = trouble
        self._changed.add(trouble.group)
