"""What becomes of a batch, given the versions that a target holds (contract §5; pure)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sinks.base import Outcome
from sinks.rows import Row

OnDelete: TypeAlias = Literal["delete", "mark"]


@dataclass(frozen=True, slots=True)
class Held:
    """What a target holds of a case. `case_type` tells whose table has its row."""

    case_type: str
    version: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, in this order: all maps are by case type but `guards`, which is by case id.

    `removed` and `marked` hold the ids of cases whose row leaves the table, or stays as deleted.
    """

    outcomes: Sequence[Outcome]
    guards: Mapping[str, Held]
    removed: Mapping[str, Sequence[str]]
    marked: Mapping[str, Sequence[str]]
    upserts: Mapping[str, Sequence[Row]]

    @property
    def case_types(self) -> set[str]:
        """The case types whose tables are written."""
        return {*self.removed, *self.marked, *self.upserts}


def decided(rows: Sequence[Row], held: Mapping[str, Held], on_delete: OnDelete) -> Decision:
    """Decide on the rows of one domain; `held` is by case id and lacks cases that are new.

    A row is written if its version is at least the held one. A case that is gone keeps its guard,
    so that a late old version does not revive it, and the type that its row is under.
    """
    outcomes: list[Outcome] = []
    guards: dict[str, Held] = {}
    removed: defaultdict[str, list[str]] = defaultdict(list)
    marked: defaultdict[str, list[str]] = defaultdict(list)
    upserts: defaultdict[str, list[Row]] = defaultdict(list)
    gone = removed if on_delete == "delete" else marked
    for row in rows:
        before = held.get(row.case_id)
        if before is not None and row.version < before.version:
            outcomes.append("stale")
            continue
        outcomes.append("written")
        case_type = before.case_type if before and row.deleted else row.case_type
        guards[row.case_id] = Held(case_type, row.version, row.deleted)
        if row.deleted:
            gone[case_type].append(row.case_id)
            continue
        upserts[case_type].append(row)
        if before is not None and before.case_type != case_type:
            removed[before.case_type].append(row.case_id)
    return Decision(outcomes, guards, removed, marked, upserts)


def by_domain(rows: Sequence[Row]) -> Mapping[str, Sequence[int]]:
    """Return the places of each domain's rows, by case id: in one order, locks cannot cross."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place in sorted(range(len(rows)), key=lambda place: rows[place].case_id):
        places[rows[place].domain].append(place)
    return places
