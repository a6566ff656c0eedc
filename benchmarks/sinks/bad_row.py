"""What one bad row costs the batch that it is in, through the runner and into PostgreSQL."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import msgspec

from benchmarks.sinks.place import database
from benchmarks.sinks.workload import Event, events, key_of
from schemas.case import CaseState
from sinks.postgres import PostgresSink
from streams.app import spare_the_collector
from streams.delivery import Delivery
from tests.servers import LocalPostgres
from tests.streams.made import Made

ROWS: Final = 2000
_PAIRS: Final = 9


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds: a batch without a bad row, and what one adds to it (medians)."""

    clean: float
    refused: float
    screened: float


async def cost_of_a_bad_row(server: LocalPostgres) -> Cost:
    """Write the same cases again and again, by turns without and with a bad row."""
    cases = [event.case for event in _newest(events(100_000))]
    times: dict[str, list[float]] = {"clean": [], "refused": [], "screened": []}
    spare_the_collector()  # as a worker does
    with database(server, "bad_row") as url:
        delivery = Delivery("bench", PostgresSink(url))
        for turn in range(_PAIRS):
            for kind, taken in times.items():
                batch = [_again(case, turn) for case in cases]
                if kind != "clean":
                    batch[ROWS // 3] = _spoilt(batch[ROWS // 3], kind)
                taken.append(await _written(delivery, batch, bad=kind != "clean"))
        await delivery.close()
    clean, refused, screened = (median(taken[1:]) * 1000 for taken in times.values())
    return Cost(clean, refused - clean, screened - clean)


def _newest(all_events: Sequence[Event]) -> Sequence[Event]:
    return list({event.case.case_id: event for event in all_events}.values())[:ROWS]


def _again(case: CaseState, turn: int) -> CaseState:
    return msgspec.structs.replace(case, version=case.version + turn)


def _spoilt(case: CaseState, kind: str) -> CaseState:
    """Return what PostgreSQL refuses, or what we know that it would."""
    if kind == "refused":
        return msgspec.structs.replace(case, date_modified="2026-13-01T00:00:00.000000Z")
    return msgspec.structs.replace(case, properties={**case.properties, "note": "\0"})


async def _written(delivery: Delivery, cases: Sequence[CaseState], *, bad: bool) -> float:
    records = [
        Made(
            case.to_json(),
            key_of(case),
            [("casewire-version", str(case.version).encode())],
            offset=offset,
        )
        for offset, case in enumerate(cases)
    ]
    began = time.perf_counter()
    delivered = await delivery.deliver(records)
    taken = time.perf_counter() - began
    if delivered.ends.count("written") != ROWS - bad or delivered.ends.count("dead") != bad:
        raise RuntimeError("the batch did not end as it has to")
    return taken
