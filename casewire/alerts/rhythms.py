"""When each project space usually sends what, learnt event by event (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from casewire.alerts import silence
from casewire.alerts.reports import of_silence
from schemas.alert import Alert
from schemas.times import from_microseconds, to_microseconds
from schemas.values import Value
from streams.records import Out

SCHEMA: Final = "rhythm/1"


class Rhythm(Value, frozen=True, kw_only=True):
    """The hours (since 1970) in which something of a domain and kind came: see silence.py."""

    domain: str
    kind: str
    hours: Sequence[int]

    @property
    def key(self) -> str:
        """The record's key. A group has four parts, so that none is like it."""
        return f"rhythm/{self.domain}/{self.kind}"


@dataclass(slots=True)
class Rhythms:
    """`limit`: so many usual hours without anything are a silence; 0 never tells of one."""

    limit: int
    held: dict[str, Rhythm] = field(default_factory=dict)
    _hour: int = 0
    _changed: set[str] = field(default_factory=set)

    def came(self, domain: str, kind: str, at: str) -> None:
        """Take that something came."""
        hour = _hour_of(at)
        new = Rhythm(domain=domain, kind=kind, hours=[hour])
        held = self.held.get(new.key, new)
        if held is new or hour not in held.hours:
            hours = silence.with_hour(held.hours, hour)
            self.held[new.key] = Rhythm(domain=domain, kind=kind, hours=hours)
            self._changed.add(new.key)

    def look(self, now: str) -> Sequence[Alert]:
        """Return a report of each silence: once an hour, and not in the first.

        What waited while the role did not run is still on its way then.
        """
        hour, before = _hour_of(now), self._hour
        self._hour = hour
        if before in (0, hour) or not self.limit:
            return []
        return [
            of_silence(each.domain, each.kind, _end_of(each.hours[-1]), now)
            for each in self.held.values()
            if silence.silent(each.hours, hour, self.limit)
        ]

    def changes(self) -> Sequence[Out]:
        """Return what has changed since the last call, for `casewire.alert-state`."""
        changed, self._changed = self._changed, set()
        headers = [("casewire-schema", SCHEMA.encode())]
        return [Out(key.encode(), self.held[key].to_json(), headers) for key in sorted(changed)]


def _hour_of(time: str) -> int:
    return to_microseconds(time) // silence.HOUR_MICROSECONDS


def _end_of(hour: int) -> str:
    end = from_microseconds((hour + 1) * silence.HOUR_MICROSECONDS)
    return f"{end[:10]} {end[11:16]} UTC"
