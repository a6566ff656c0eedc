"""A sink that keeps rows in memory, for tests: it passes the tests that every sink passes."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from sinks.base import Message, Outcome
from sinks.guard import Decision, Held, OnDelete, decided, parts
from sinks.layout import Group, State
from sinks.rows import Row, filled, prepared

Key: TypeAlias = tuple[str, State, str]
"""Domain, what it is, and its id."""


class MemorySink:
    """`guards` and `rows` are by key; a line's `own` holds all but `cw_overflow`.

    `repeats` holds the paths, by domain and form, that were a list once.
    """

    def __init__(self, on_delete: OnDelete = "delete") -> None:
        self.guards: dict[Key, Held] = {}
        self.rows: dict[Key, Row] = {}
        self.repeats: defaultdict[tuple[str, Group], set[str]] = defaultdict(set)
        self._on_delete: OnDelete = on_delete

    async def open(self) -> None:
        pass

    async def write(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        rows = prepared(messages, takes_nul=True)
        outcomes: dict[int, Outcome] = {}
        for (domain, state), places in parts(rows).items():
            decision = self._decide(domain, state, [rows[place] for place in places])
            self._apply(domain, state, decision)
            outcomes.update(zip(places, decision.outcomes, strict=True))
        return [outcomes[place] for place in range(len(rows))]

    async def versions(self, messages: Sequence[Message]) -> Sequence[int | None]:
        held = [self.guards.get((each.domain, each.kind, each.subject)) for each in messages]
        return [None if each is None else each.version for each in held]

    async def close(self) -> None:
        pass

    def _decide(self, domain: str, state: State, rows: Sequence[Row]) -> Decision:
        for row in rows:
            if not row.deleted:
                self.repeats[domain, row.family.group_of(row.group)] |= row.lines(()).keys() - {""}
        held = {
            row.id: self.guards[domain, state, row.id]
            for row in rows
            if (domain, state, row.id) in self.guards
        }
        return decided(rows, held, self._on_delete)

    def _apply(self, domain: str, state: State, decision: Decision) -> None:
        for each, held in decision.guards.items():
            self.guards[domain, state, each] = held
        for row in (row for rows in decision.upserts.values() for row in rows):
            before = self.rows.get((domain, state, row.id))
            line = filled(row.line, before.line.own if before else {})
            self.rows[domain, state, row.id] = msgspec.structs.replace(row, line=line)
        for each in (each for ids in decision.removed.values() for each in ids):
            if self.guards[domain, state, each].deleted:
                self.rows.pop((domain, state, each), None)
        for each in (each for ids in decision.marked.values() for each in ids):
            if (before := self.rows.get((domain, state, each))) is not None:
                line = msgspec.structs.replace(
                    before.line, own={**before.line.own, "cw_deleted": True}
                )
                self.rows[domain, state, each] = msgspec.structs.replace(before, line=line)
