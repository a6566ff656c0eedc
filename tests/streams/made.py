"""Records as they come from Kafka, made by hand."""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.case import CaseState
from schemas.envelope import Address, EventIds, captured_headers

IDS = EventIds()


@dataclass(frozen=True, slots=True)
class Made:
    value: bytes | None
    key: bytes | None = b"demo/c1"
    headers: Sequence[tuple[str, bytes]] = ()
    topic: str = "casewire.case-state"
    partition: int = 0
    offset: int = 0
    timestamp: int = 0


def captured(
    body: bytes,
    *,
    offset: int = 0,
    label: str = "",
    headers: Sequence[tuple[str, bytes]] = (),
    ids: EventIds = IDS,
) -> Made:
    """Make a captured record, as the ingress that makes these ids writes it."""
    event_id, time = ids.next()
    address = Address(domain="demo", label=label, method="POST", path="/api/v1/in/demo", query="")
    return Made(
        body,
        key=event_id.encode(),
        headers=captured_headers(event_id, time, address, headers),
        topic="casewire.captured",
        offset=offset,
    )


def state(case_id: str, version: int, **properties: str) -> CaseState:
    return CaseState(
        domain="demo",
        case_id=case_id,
        user_id=None,
        closed=False,
        xform_ids=["f1"],
        date_closed=None,
        date_modified=None,
        server_date_modified="2026-01-01T00:00:00.000000Z",
        properties={"case_type": "patient", **properties},
        indices={},
        attachments={},
        source="snapshot",
        version=version,
        captured_id=f"id-{version}",
        deleted=False,
        doubtful=False,
    )


def state_record(case_id: str, version: int, *, offset: int = 0, **properties: str) -> Made:
    return Made(
        state(case_id, version, **properties).to_json(),
        key=f"demo/{case_id}".encode(),
        headers=[
            ("ce_id", f"id-{version}/state/0".encode()),
            ("casewire-domain", b"demo"),
            ("casewire-version", str(version).encode()),
        ],
        offset=offset,
    )
