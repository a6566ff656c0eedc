"""What is written: made-up case states, the same in every run, and what must come of them."""

import random
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import orjson

from schemas.case import CaseEvent, CaseState
from schemas.envelope import Address, EventIds, captured_headers, derived_headers
from schemas.times import from_datetime, to_microseconds
from streams.records import Out

#: Of so many cases the events are drawn, for each two events of the whole.
_CASES_AN_EVENT: Final = 1 / 2
_TYPES: Final = ("patient", "household", "visit")
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_STEP: Final = timedelta(milliseconds=360)
#: Of a hundred events, how many come twice, and how many come late; by how many events.
_TWICE: Final = 0.05
_LATE: Final = 0.05
_LATE_EVENTS: Final = 10_000
#: Of a hundred states, how many have an empty phone number, and how many have no `bp`.
_CLEARED: Final = 0.05
_ABSENT: Final = 0.05
#: The rare properties come up in the last part of the events, and in a hundredth of those.
_RARE: Final = ("order", "referral", "outcome_note")
_RARE_FROM: Final = 0.6
_RARE_SHARE: Final = 0.03
#: All properties that a state may have.
COLUMNS: Final = (
    "case_name", "case_type", "owner_id", "date_opened", "external_id", "last_change", "phone",
    "bp", "dob", "gender", "village", "risk", "next_visit", "note",
    *(f"question_{each}" for each in range(6)), *_RARE,
)  # fmt: skip
_ADDRESS: Final = Address(domain="demo", label="", method="POST", path="/api/v1/in/demo", query="")
_REQUEST: Final = [
    ("user-agent", b"python-requests/2.32.3"),
    ("accept-encoding", b"gzip, deflate"),
    ("accept", b"*/*"),
    ("content-type", b"application/json"),
    ("server-modified-on", b"2026-11-22T10:00:00.000000Z"),
    ("content-length", b"1023"),
]
_WRITER: Final = "host/1/abcdef01"


@dataclass(frozen=True, slots=True)
class Event:
    """A state of a case; `step` is the number of the event that it was made as."""

    step: int
    case: CaseState


@lru_cache(maxsize=2)
def events(count: int) -> Sequence[Event]:
    """Return so many states of 1 KB in the order in which they are read, some late, some twice."""
    chance = random.Random(1)  # noqa: S311 - not for secrets
    cases = [
        str(uuid.UUID(int=chance.getrandbits(128), version=4))
        for _ in range(max(1, int(count * _CASES_AN_EVENT)))
    ]
    placed: list[tuple[float, Event]] = []
    while len(placed) < count:
        step = len(placed)
        event = Event(step, _state(cases, step, step / count, chance))
        place = step + chance.uniform(0, _LATE_EVENTS) * (chance.random() < _LATE)
        placed.append((place, event))
        if chance.random() < _TWICE:
            placed.append((place + chance.uniform(0, _LATE_EVENTS), event))
    return [event for _, event in sorted(placed, key=lambda pair: pair[0])][:count]


def _state(cases: Sequence[str], step: int, share: float, chance: random.Random) -> CaseState:
    number = chance.randrange(len(cases))
    at = _START + step * _STEP
    modified = from_datetime(at)
    return CaseState(
        domain="demo",
        case_id=cases[number],
        user_id="06414101dc45bcfdc963b8cb1a1ebdfd",
        closed=False,
        xform_ids=[f"{chance.getrandbits(128):032x}"],
        date_closed=None,
        date_modified=modified,
        server_date_modified=modified,
        properties=_properties(number, step, share, chance),
        indices={
            "parent": {
                "case_type": "village",
                "case_id": "eb1a8c23-6d6d-4b61-894c-ae1c437d8dac",
                "relationship": "child",
            }
        },
        attachments={},
        source="snapshot",
        version=to_microseconds(modified),
        captured_id=f"0199f000-{step >> 16:04x}-7000-8000-{step:012x}",
        deleted=False,
        doubtful=False,
    )


def _properties(number: int, step: int, share: float, chance: random.Random) -> Mapping[str, str]:
    properties = {
        "case_name": f"Case {number}",
        "case_type": _TYPES[number % len(_TYPES)],
        "owner_id": "20cc9dda-b90a-4af3-aa3d-fc67184e73ef",
        "date_opened": "2026-01-01T00:00:00.000000Z",
        "external_id": str(number),
        "last_change": str(step),
        "phone": "" if chance.random() < _CLEARED else f"+2557{chance.randrange(10**8):08d}",
        "bp": f"{chance.randrange(90, 160)}/80",
        "dob": "1948-11-02",
        "gender": "f",
        "village": f"village {step % 97}",
        "risk": ("low", "middle", "high")[step % 3],
        "next_visit": "2026-12-01",
        "note": "seen at home",
        **{f"question_{each}": f"answer {each * 7919}" for each in range(6)},
    }
    if chance.random() < _ABSENT:
        del properties["bp"]
    if share > _RARE_FROM and chance.random() < _RARE_SHARE:
        properties[chance.choice(_RARE)] = f"late {step}"
    return properties


def records(count: int) -> Iterator[Out]:
    """Yield the events as `casewire streams` publishes states, with HQ's headers."""
    ids = EventIds()
    for event in events(count):
        case = event.case
        event_id, at = ids.next()
        headers = derived_headers(
            captured_headers(event_id, at, _ADDRESS, _REQUEST),
            event_id=f"{event_id}/state/0",
            captured_id=event_id,
            event_type="org.commcare.case.state",
            subject=case.case_id,
            schema="case-state/1",
        )
        own = [("casewire-version", b"%d" % case.version), ("casewire-writer", _WRITER.encode())]
        yield Out(key_of(case), case.to_json(), own + headers)


def event_records(count: int) -> Iterator[Out]:
    """Yield the events as `casewire streams` publishes what was forwarded."""
    for out, event in zip(records(count), events(count), strict=True):
        known = {name: getattr(event.case, name) for name in CaseEvent.names()}
        headers = [item for item in out.headers if not item[0].startswith("casewire-version")]
        yield Out(out.key, CaseEvent(**known).to_json(), headers)


def key_of(case: CaseState) -> bytes:
    return f"{case.domain}/{case.case_id}".encode()


@lru_cache
def _schema(names: tuple[str, ...]) -> bytes:
    """Return Connect's schema of a record with these fields, all of them text."""
    fields = [{"field": name, "type": "string", "optional": True} for name in names]
    return orjson.dumps({"type": "struct", "optional": False, "fields": fields})


def flat(case: CaseState) -> dict[str, Any]:
    """Return a state as a flat record of texts, as one sets up a sink that knows no cases."""
    return {
        "case_id": case.case_id,
        "domain": case.domain,
        "closed": str(case.closed).lower(),
        "date_modified": case.date_modified,
        "server_date_modified": case.server_date_modified,
        "user_id": case.user_id,
        **case.properties,
    }


def connect_records(count: int, each: int, *, varying: bool) -> Iterator[Out]:
    """Yield each so-manieth event as Connect's JSON converter reads them, with its schema.

    `varying`: a record has the fields that its state has; else all have the same, some null.
    """
    every = dict.fromkeys((*flat(events(count)[0].case), *COLUMNS))
    key_schema = _schema(("case_id",))
    for event in events(count)[::each]:
        value = flat(event.case) if varying else {**every, **flat(event.case)}
        key = orjson.dumps({"case_id": event.case.case_id})
        yield Out(
            b'{"schema":%b,"payload":%b}' % (key_schema, key),
            b'{"schema":%b,"payload":%b}' % (_schema(tuple(value)), orjson.dumps(value)),
            (),
        )


@dataclass(frozen=True, slots=True)
class Truth:
    """The newest state of each case, and how many of them are not the last that is read."""

    newest: Mapping[str, CaseState]
    overtaken: int


@lru_cache
def truth(count: int, each: int = 1) -> Truth:
    """Return what is true when each so-manieth of the events has been read."""
    newest: dict[str, CaseState] = {}
    last: dict[str, CaseState] = {}
    for event in events(count)[::each]:
        case = event.case
        last[case.case_id] = case
        held = newest.get(case.case_id)
        if held is None or case.version >= held.version:
            newest[case.case_id] = case
    overtaken = sum(last[case_id].version < case.version for case_id, case in newest.items())
    return Truth(newest, overtaken)


@dataclass(frozen=True, slots=True)
class Faults:
    """What a target has that is not so, in cases (`missing`, `stale`) and in values.

    `kept`: an old value where there is none now; `lost`: none where there is one; `other`: another.
    """

    missing: int = 0
    stale: int = 0
    kept: int = 0
    lost: int = 0
    other: int = 0


def faults(found: Mapping[str, Mapping[str, str | None]], right: Mapping[str, CaseState]) -> Faults:
    """Compare a target's rows (properties by case id, None for null) with what is true.

    An empty value and null are not told apart: both say that there is none.
    """
    counts: Counter[str] = Counter()
    for case_id, case in right.items():
        row = found.get(case_id)
        if row is None:
            counts["missing"] += 1
        elif row.get("last_change") != case.properties["last_change"]:
            counts["stale"] += 1
        else:
            counts.update(_differences(row, case.properties))
    return Faults(**counts)


def _differences(row: Mapping[str, str | None], properties: Mapping[str, str]) -> Iterator[str]:
    for name in COLUMNS:
        is_there, is_true = row.get(name), properties.get(name)
        if not is_true and is_there:
            yield "kept"
        elif is_true and not is_there:
            yield "lost"
        elif is_true != is_there and is_true:
            yield "other"
