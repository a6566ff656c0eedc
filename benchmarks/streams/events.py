"""What flows: made-up snapshots and forms as HQ forwards them, the same in every run."""

import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final

import orjson

CASES: Final = 20_000
_FORM: Final = (
    Path(__file__).parents[2] / "tests" / "fixtures" / "hq" / "form_xml_with_case.xml"
).read_bytes()
_FORM_ID: Final = b"afcb3026-c4b3-463f-85ec-0cb9a2737fc5"
_CASE_ID: Final = b"b0916685-7247-4c44-b712-633d3d64e0c0"
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_STEP: Final = timedelta(minutes=10)
#: Of a hundred events, how many come after their successor, and how many come twice.
_LATE: Final = 0.05
_TWICE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A case as HQ forwards it; of one case the greater `step` is the later."""

    case_id: str
    step: int
    body: bytes


@dataclass(slots=True)
class _Story:
    """What has been sent of a case; `owed` is a snapshot that its successor overtook."""

    step: int = 0
    owed: Snapshot | None = None
    last: Snapshot | None = None
    forms: list[str] = field(default_factory=list)


def case_ids() -> Sequence[str]:
    chance = random.Random(0)  # noqa: S311 - not for secrets
    return [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(CASES)]


def snapshots(count: int, seed: int = 1) -> Iterator[Snapshot]:
    """Yield snapshots of 1 KB of `CASES` cases, some late, some twice; none in doubt."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    stories = {case: _Story() for case in case_ids()}
    cases = list(stories)
    for _ in range(count):
        case = chance.choice(cases)
        story = stories[case]
        story.last = _next(case, story, chance)
        yield story.last


def visits(count: int) -> Iterator[Snapshot]:
    """Yield snapshots each of which is its case's next, of a thousand cases by turns."""
    chance = random.Random(3)  # noqa: S311 - not for secrets
    stories = [(case, _Story()) for case in case_ids()[:1000]]
    for number in range(count):
        yield _snapshot(*stories[number % len(stories)], chance)


def _next(case: str, story: _Story, chance: random.Random) -> Snapshot:
    if story.owed is not None:
        owed, story.owed = story.owed, None
        return owed
    if story.last is not None and chance.random() < _TWICE:
        return story.last
    if chance.random() < _LATE:
        story.owed = _snapshot(case, story, chance)
    return _snapshot(case, story, chance)


def _snapshot(case: str, story: _Story, chance: random.Random) -> Snapshot:
    step = story.step = story.step + 1
    story.forms = [*story.forms, str(uuid.UUID(int=chance.getrandbits(128), version=4))]
    at = (_START + step * _STEP).isoformat(timespec="microseconds").replace("+00:00", "Z")
    body = {
        "domain": "demo",
        "case_id": case,
        "user_id": "06414101dc45bcfdc963b8cb1a1ebdfd",
        "closed": False,
        "xform_ids": story.forms,
        "date_closed": None,
        "date_modified": at,
        "server_date_modified": at,
        "properties": {
            "case_name": f"Case {case[-12:]}",
            "case_type": "patient",
            "owner_id": "20cc9dda-b90a-4af3-aa3d-fc67184e73ef",
            "date_opened": "2026-01-01T00:00:00.000000Z",
            "external_id": case[-12:],
            "visits": str(step),
            "dob": "1948-11-02",
            "gender": "f",
            "village": f"village {step % 97}",
            "risk": ("low", "middle", "high")[step % 3],
            "next_visit": at[:10],
            "note": "has been seen at home, is well, takes what was prescribed",
        },
        "indices": {
            "parent": {
                "case_type": "household",
                "case_id": "eb1a8c23-6d6d-4b61-894c-ae1c437d8dac",
                "relationship": "child",
            }
        },
        "attachments": {},
    }
    return Snapshot(case, step, orjson.dumps(body))


def forms(count: int) -> Iterator[bytes]:
    """Yield forms of 1.1 KB in XML, each with one case block."""
    chance = random.Random(2)  # noqa: S311 - not for secrets
    cases = case_ids()
    for _ in range(count):
        form = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        case = chance.choice(cases)
        yield _FORM.replace(_FORM_ID, form.encode()).replace(_CASE_ID, case.encode())


@dataclass(frozen=True, slots=True)
class Truth:
    """What must come of snapshots: the last of each case, the latest, and how many applied."""

    last: Mapping[str, bytes]
    latest: Mapping[str, int]
    applied: int


@lru_cache
def truth(count: int) -> Truth:
    last: dict[str, bytes] = {}
    latest: dict[str, int] = {}
    applied = 0
    for each in snapshots(count):
        last[each.case_id] = each.body
        if each.step > latest.get(each.case_id, 0):
            latest[each.case_id] = each.step
            applied += 1
    return Truth(last, latest, applied)
