"""Which events an operator means: by project space, kind, case, form and time."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar

import click

from schemas.times import canonical

Kind: TypeAlias = Literal["case", "form", "stub", "app", "user", "location", "custom", ""]
"""What an event is about; empty if it cannot be told."""

KINDS: Final[tuple[Kind, ...]] = ("case", "form", "stub", "app", "user", "location", "custom")

Command = TypeVar("Command", bound=Callable[..., Any])


class Moment(click.ParamType):
    """A time such as 2026-11-22T10:00:00Z or 2026-11-22 (its midnight), UTC unless it says else."""

    name = "TIME"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = canonical(value)
        if found is None:
            self.fail(f"{value!r} is no time; write it as 2026-11-22T10:00:00Z", param, ctx)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is known of an event. `ids` are those of the cases and forms that it is about."""

    domain: str
    kind: Kind
    cases: frozenset[str] = frozenset()
    forms: frozenset[str] = frozenset()
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was chosen; an empty text leaves it open. `since` is inclusive, `until` is not."""

    domain: str = ""
    kind: str = ""
    case: str = ""
    form: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def chosen(cls, values: dict[str, Any]) -> Self:
        """Take what is ours out of a command's values."""
        return cls(**{field.name: values.pop(field.name) or "" for field in fields(cls)})

    def takes(self, subject: Subject) -> bool:
        """Whether an event is meant."""
        return (
            self.takes_envelope(subject.domain, subject.time)
            and self.kind in ("", subject.kind)
            and _among(self.case, subject.cases)
            and _among(self.form, subject.forms)
        )

    def takes_envelope(self, domain: str, time: str) -> bool:
        """Whether an event may be meant, by all that is known before its body is read."""
        return (
            self.domain in ("", domain)
            and self.since <= time
            and (not self.until or time < self.until)
        )


ANY: Final = Choice()


def _among(wanted: str, ids: Iterable[str]) -> bool:
    return not wanted or wanted in ids


def choice_options(command: Command) -> Command:
    """Add the options that `Choice` takes."""
    for option in reversed(
        (
            click.option("--domain", help="Only what this project space sent."),
            click.option("--kind", type=click.Choice(KINDS), help="Only what is about this."),
            click.option("--case", metavar="ID", help="Only what is about this case."),
            click.option("--form", metavar="ID", help="Only what is about this form."),
            click.option("--since", type=Moment(), help="Received at this time or later."),
            click.option("--until", type=Moment(), help="Received before this time."),
        )
    ):
        command = option(command)
    return command
