"""What becomes of a batch, given the versions that a target holds (contract §5; pure)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from sinks.base import Outcome
from sinks.layout import Group, State
from sinks.rows import Row

OnDelete: TypeAlias = Literal["delete", "mark"]


class Held(msgspec.Struct, frozen=True):
    """What a target holds of a case or form. `group` tells whose table has its row.

    A struct, as values are: one is made for each event.
    """

    group: str
    version: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, in this order: all maps are by what has a table but `guards`, which is by id.

    `removed` and `marked` hold the ids of cases or forms whose row leaves the table, or stays as
    deleted; `replaced` the ids of the `upserts` that may have a row already.
    """

    outcomes: Sequence[Outcome]
    guards: Mapping[str, Held]
    removed: Mapping[Group, Sequence[str]]
    marked: Mapping[Group, Sequence[str]]
    replaced: Mapping[Group, Sequence[str]]
    upserts: Mapping[Group, Sequence[Row]]

    @property
    def groups(self) -> set[Group]:
        """What has a table that is written."""
        return {*self.removed, *self.marked, *self.upserts}


def decided(rows: Sequence[Row], held: Mapping[str, Held], on_delete: OnDelete) -> Decision:
    """Decide on the rows of one part (`parts`); `held` is by id and lacks what is new.

    It may lack, too, what is known to be older, and of the same group, and there before and after.

    A row is written if its version is at least the held one. What is gone keeps its guard, so that
    a late old version does not revive it, and the group that its row is under.
    """
    outcomes: list[Outcome] = []
    guards: dict[str, Held] = {}
    removed: defaultdict[Group, list[str]] = defaultdict(list)
    marked: defaultdict[Group, list[str]] = defaultdict(list)
    replaced: defaultdict[Group, list[str]] = defaultdict(list)
    upserts: defaultdict[Group, list[Row]] = defaultdict(list)
    gone = removed if on_delete == "delete" else marked
    for row in rows:
        before = held.get(row.id)
        if before is not None and row.version < before.version:
            outcomes.append("stale")
            continue
        outcomes.append("written")
        name = before.group if before and row.deleted else row.group
        guards[row.id] = Held(name, row.version, row.deleted)
        group = row.family.group_of(name)
        if row.deleted:
            gone[group].append(row.id)
            continue
        upserts[group].append(row)
        if before is not None:
            (replaced[group] if before.group == name else removed[_old(row, before)]).append(row.id)
    return Decision(outcomes, guards, removed, marked, replaced, upserts)


def _old(row: Row, before: Held) -> Group:
    return row.family.group_of(before.group)


def parts(rows: Sequence[Row]) -> Mapping[tuple[str, State], Sequence[int]]:
    """Return the places of each domain's cases and of its forms, by id.

    Each part is a transaction; in one order, locks cannot cross.
    """
    places: defaultdict[tuple[str, State], list[int]] = defaultdict(list)
    ids = [row.id for row in rows]
    for place in sorted(range(len(rows)), key=ids.__getitem__):
        row = rows[place]
        places[row.domain, row.family.state].append(place)
    return places
