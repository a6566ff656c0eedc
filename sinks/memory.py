"""A sink that keeps rows in memory, for tests: it passes the tests that every sink passes."""

from collections.abc import Sequence
from dataclasses import replace

from sinks.base import Message, Outcome
from sinks.guard import Decision, Held, OnDelete, by_domain, decided
from sinks.rows import Row, cases, filled, prepared


class MemorySink:
    """`cases` and `rows` are by (domain, case id); a row's `own` holds all but `cw_overflow`."""

    def __init__(self, on_delete: OnDelete = "delete") -> None:
        self.cases: dict[tuple[str, str], Held] = {}
        self.rows: dict[tuple[str, str], Row] = {}
        self._on_delete: OnDelete = on_delete

    async def open(self) -> None:
        pass

    async def write(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        rows = prepared(cases(messages), takes_nul=True)
        outcomes: dict[int, Outcome] = {}
        for domain, places in by_domain(rows).items():
            decision = self._decide(domain, [rows[place] for place in places])
            self._apply(domain, decision)
            outcomes.update(zip(places, decision.outcomes, strict=True))
        return [outcomes[place] for place in range(len(rows))]

    async def versions(self, messages: Sequence[Message]) -> Sequence[int | None]:
        held = [self.cases.get((message.domain, message.subject)) for message in messages]
        return [None if each is None else each.version for each in held]

    async def close(self) -> None:
        pass

    def _decide(self, domain: str, rows: Sequence[Row]) -> Decision:
        held = {
            row.case_id: self.cases[domain, row.case_id]
            for row in rows
            if (domain, row.case_id) in self.cases
        }
        return decided(rows, held, self._on_delete)

    def _apply(self, domain: str, decision: Decision) -> None:
        for case_id, held in decision.guards.items():
            self.cases[domain, case_id] = held
        for row in (row for rows in decision.upserts.values() for row in rows):
            before = self.rows.get((domain, row.case_id))
            self.rows[domain, row.case_id] = filled(row, before.own if before else {})
        for case_id in (case_id for ids in decision.removed.values() for case_id in ids):
            if self.cases[domain, case_id].deleted:
                self.rows.pop((domain, case_id), None)
        for case_id in (case_id for ids in decision.marked.values() for case_id in ids):
            if (before := self.rows.get((domain, case_id))) is not None:
                own = {**before.own, "cw_deleted": True}
                self.rows[domain, case_id] = replace(before, own=own)
