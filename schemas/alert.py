"""Alerts: what an operator must know of and act on (contract §7)."""

from collections.abc import Sequence

from schemas.values import Value


class Alert(Value, frozen=True, kw_only=True):
    """`group` is of domain, stage, cause and target: alerts of one group tell of one trouble.

    `domain` is empty if it is not about one project space. `target` is the kind of event, or what
    was to be written to. `text` says in a sentence what is wrong and what to do, without any value
    of the data. `captured_ids` are those of some of the events concerned.
    """

    group: str
    domain: str
    stage: str
    cause: str
    target: str
    text: str
    captured_ids: Sequence[str]
    raised_at: str
