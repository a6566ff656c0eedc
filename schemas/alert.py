"""Alerts: what an operator must know of and act on (contract §7)."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from schemas.envelope import Headers
from schemas.values import Value

Status: TypeAlias = Literal["reported", "opened", "updated", "recovered", "muted"]


class Alert(Value, frozen=True, kw_only=True):
    """`group` is of domain, stage, cause and target: alerts of one group tell of one trouble.

    `domain` is empty if it is not about one project space. `target` is the kind of event, or what
    was to be written to, and `address` where that is. `text` says in a sentence what is wrong and
    what to do, without any value of the data. `captured_ids` are those of some of the events
    concerned, `subjects` (`case ID`, `form ID`) those of some of the cases and forms.

    `status` is `reported` where it comes from the role that sees the trouble. What the alerts role
    makes of all reports of a group, it tells people as `opened`, `updated` and `recovered`: `count`
    failures from `since` on. `muted`: a person wants no message before `muted_until`.

    `target_error` is what a target said word for word, if its sink says `errors_are_safe`.
    """

    group: str
    domain: str
    stage: str
    cause: str
    target: str
    text: str
    captured_ids: Sequence[str]
    raised_at: str
    status: Status = "reported"
    address: str = ""
    subjects: Sequence[str] = ()
    count: int = 1
    since: str = ""
    target_error: str = ""
    muted_until: str = ""

    def headers(self) -> Headers:
        """Return the headers of the record on `casewire.alerts`, whose key is `group`."""
        return [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{self.raised_at}/{self.status}/{self.group}".encode()),
            ("ce_source", b"/casewire"),
            ("ce_type", b"casewire.alert"),
            ("ce_time", self.raised_at.encode()),
            ("content-type", b"application/json"),
            ("casewire-schema", b"alert/1"),
        ]


def group_of(domain: str, stage: str, cause: str, target: str) -> str:
    """Return the name of the group, by which people mute it."""
    return f"{domain}/{stage}/{cause}/{target}"
