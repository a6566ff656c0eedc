"""The disorder in which what HQ sends arrives, and bodies that are broken."""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from casewire.hq import Request
from casewire.simulation.forwards import JSON, XML
from casewire.simulation.history import History
from casewire.simulation.render import CASE_XMLNS, encoded
from casewire.simulation.story import new_id
from schemas.errors import Cause


def deliver(
    history: History,
    seed: int,
    *,
    duplicates: float = 0.1,
    late: float = 0.05,
    shuffled: bool = False,
    broken: int = 8,
) -> list[Request]:
    """Return the history's requests as they arrive: each at least once, some bodies broken.

    `duplicates` is the share that is sent twice, byte for byte, the second time anywhere later;
    `late` the share that arrives anywhere later than its turn; `shuffled` drops all order;
    `broken` adds so many requests that deserve a dead letter (`Request.cause`).
    """
    rng = Random(seed)  # noqa: S311 - it must be repeatable, not secret
    count = len(history.requests)
    turns: list[tuple[float, Request]] = []
    for turn, request in enumerate(history.requests):
        delayed = rng.random() < late
        turns.append((rng.uniform(turn, count) if delayed else turn, request))
        if rng.random() < duplicates:
            turns.append((rng.uniform(turn, count), request))
    kinds = list(BROKEN)
    turns += [
        (rng.uniform(0, count), _broken(kinds[number % len(kinds)], rng, history.truth.domain))
        for number in range(broken)
    ]
    if shuffled:
        rng.shuffle(turns)
    else:
        turns.sort(key=_turn)
    return [request for _, request in turns]


def _turn(entry: tuple[float, Request]) -> float:
    return entry[0]


def _case(case_id: str, domain: str, modified: str) -> bytes:
    return encoded(
        {
            "domain": domain,
            "case_id": case_id,
            "user_id": "",
            "closed": False,
            "xform_ids": [case_id],
            "date_closed": None,
            "date_modified": modified,
            "server_date_modified": modified,
            "properties": {"case_type": "person", "case_name": "Broken Sample", "owner_id": ""},
            "indices": {},
            "attachments": {},
        }
    )


_TIME: Final = "2026-01-01T00:00:00.000000Z"

#: Each kind of broken body: the cause it deserves, its content type, its maker from id and domain.
BROKEN: Final[dict[str, tuple[Cause, str, Callable[[str, str], bytes]]]] = {
    "xml cut off": (
        "malformed_xml",
        XML,
        lambda case_id, _: f'<case case_id="{case_id}" xmlns="{CASE_XMLNS}"><crea'.encode(),
    ),
    "json cut off": (
        "malformed_json",
        JSON,
        lambda case_id, domain: _case(case_id, domain, _TIME)[:-40],
    ),
    "xml case without id": (
        "missing_id",
        XML,
        lambda _, __: f'<case date_modified="{_TIME}" xmlns="{CASE_XMLNS}"/>'.encode(),
    ),
    "json case with a blank id": (
        "missing_id",
        JSON,
        lambda _, domain: _case("", domain, _TIME),
    ),
    "wrong date": (
        "invalid_field",
        JSON,
        lambda case_id, domain: _case(case_id, domain, "yesterday"),
    ),
    "date far ahead": (
        "invalid_field",
        JSON,
        lambda case_id, domain: _case(case_id, domain, "2999-01-01T00:00:00.000000Z"),
    ),
    "unknown kind": ("unknown_kind", JSON, lambda _, __: encoded({"hello": "world"})),
    "empty": ("unknown_kind", XML, lambda _, __: b""),
}


def _broken(kind: str, rng: Random, domain: str) -> Request:
    cause, content_type, make = BROKEN[kind]
    case_id = new_id(rng)
    return Request(
        kind="broken",
        body=make(case_id, domain),
        content_type=content_type,
        subject=kind,
        cause=cause,
    )


def deserved(requests: Sequence[Request]) -> dict[str, int]:
    """Return how many dead letters of each cause the requests deserve."""
    return dict(Counter(request.cause for request in requests if request.cause))
