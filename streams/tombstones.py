"""Cases that are forgotten: a gone case's state becomes null after 30 days (contract §4). Pure.

When a case was gone is told by its state's version: microseconds of the capture of the event that
said so (contract §5). HQ's own time would not do: an event that comes late would be forgotten
before anybody has read of it.

A null tells nothing, and a form that comes late would make the case anew. So its fold keeps a mark
until nothing is left in Kafka that could come late: 90 days of dead letters, 7 of replays, and what
brokers keep beyond that (a segment, 7 days), counted from the null.
"""

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import msgspec

from schemas.case import CaseState

DAY_MICROSECONDS: Final = 24 * 60 * 60 * 1_000_000
STATE_DAYS: Final = 30
#: Counted from when the case was gone, as `STATE_DAYS` is.
MARK_DAYS: Final = STATE_DAYS + 120

Stored: TypeAlias = tuple[bytes, int, bytes]
"""Key, version and value of what a table holds."""

_SAYS_DELETED: Final = b'"deleted":true'
_SAYS_GONE: Final = b'"gone":['


class Gone(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a case whose state has become null; `version` is that of the null."""

    version: int
    captured_id: str
    server_date_modified: str | None
    case_type: str

    @classmethod
    def of(cls, state: CaseState) -> "Gone":
        modified = state.server_date_modified
        return cls(state.version + 1, state.captured_id, modified, state.case_type)

    def state(self, domain: str, case_id: str) -> CaseState:
        """Return the state that became null, as far as it is still known."""
        return CaseState(
            domain=domain,
            case_id=case_id,
            user_id=None,
            closed=False,
            xform_ids=[],
            date_closed=None,
            date_modified=None,
            server_date_modified=self.server_date_modified,
            properties={"case_type": self.case_type} if self.case_type else {},
            indices={},
            attachments={},
            source="snapshot",
            version=self.version,
            captured_id=self.captured_id,
            deleted=True,
            doubtful=False,
        )


def due(states: Iterable[Stored], now: int) -> Sequence[bytes]:
    """Return the keys of the case states that are to become null. `now`: microseconds since 1970.

    What is no case state stays as it is.
    """
    latest = now - STATE_DAYS * DAY_MICROSECONDS
    return [
        key
        for key, version, value in states
        if version <= latest and _SAYS_DELETED in value and _is_deleted(value)
    ]


def marks_due(folds: Iterable[Stored], now: int) -> Sequence[bytes]:
    """Return the keys of the folds whose mark of a gone case is to go."""
    latest = now - MARK_DAYS * DAY_MICROSECONDS
    return [key for key, version, value in folds if version <= latest and _SAYS_GONE in value]


def _is_deleted(value: bytes) -> bool:
    try:
        return CaseState.from_json(value).deleted is True
    except (TypeError, ValueError):
        return False
