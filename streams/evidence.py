"""What forms prove about the order of two snapshots of a case. Pure.

HQ gives a snapshot the `received_on` of the form that it has just processed for the first time, or
the moment of a rebuild (protocol.md §6.5). So a snapshot whose time is the `received_on` of a form
that it knows is the first one with that form: each other snapshot that knows the form is newer.

That is exact, whatever the times say, unless HQ received two forms of the case in one microsecond.
Nothing is proved where the time is no form's `received_on`: a form may have been archived, and a
late one processed after that (docs/design.md).
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

from schemas.case import CaseEvent

Received: TypeAlias = Mapping[str, str | None]
"""When HQ received forms, by form id."""

C = TypeVar("C", bound=CaseEvent)


def made_by(snapshot: CaseEvent, received: Received) -> set[str]:
    """Return the known forms of which the snapshot is the first to know; usually one or none."""
    time = snapshot.server_date_modified
    if time is None:
        return set()
    return {form_id for form_id in snapshot.xform_ids or () if received.get(form_id) == time}


def proves_newer(one: CaseEvent, other: CaseEvent, received: Received) -> bool:
    """Whether `one` is newer than `other` for certain."""
    if one.server_date_modified == other.server_date_modified:
        return False
    first = made_by(other, received)
    return bool(first) and first <= set(one.xform_ids or ())


def newest(snapshots: Sequence[C], received: Received) -> C | None:
    """Return the one that is the newest for certain, None if that cannot be told."""
    unbeaten = [
        each
        for each in snapshots
        if not any(proves_newer(other, each, received) for other in snapshots)
    ]
    return unbeaten[0] if len(unbeaten) == 1 else None
