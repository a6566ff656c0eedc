"""What cases in JSON and in XML have in common."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from schemas.case import CaseEvent, CaseState
from schemas.envelope import Captured
from schemas.errors import InvalidEventError
from schemas.fields import ordering_time
from schemas.times import canonical, to_microseconds
from schemas.values import Json

KNOWN: Final = frozenset(CaseEvent.names())
#: What a state adds: a key of that name that was sent means something else.
RESERVED: Final = frozenset(CaseState.names()) - KNOWN

_HEADER: Final = "server-modified-on"
_TOO_EARLY: Final = timedelta(hours=24) // timedelta(microseconds=1)


def server_date_modified(
    sent: Mapping[str, Json], extra: dict[str, Json], captured: Captured
) -> str | None:
    """Return the time that orders a case's snapshots (contract §5), from the body or the header.

    One more than 24 h ahead of the capture would hold off all that follows: InvalidEventError.
    """
    name = "server_date_modified"
    time = ordering_time(name, sent, extra, captured, _HEADER)
    if time is not None and time > captured.time and _is_too_early(captured.time, time):
        path = name if sent.get(name) else f"headers.{_HEADER}"
        raise InvalidEventError(
            "invalid_field", "the time is more than 24 hours after the capture", path=path
        )
    return time


def _is_too_early(captured_time: str, time: str) -> bool:
    now = canonical(captured_time)
    if now is None:
        raise InvalidEventError("invalid_field", "the field says no time", path="headers.ce_time")
    return to_microseconds(time) - to_microseconds(now) > _TOO_EARLY
