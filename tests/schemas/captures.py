"""Captured requests for tests."""

from pathlib import Path
from typing import Final

from schemas.envelope import Captured

HQ: Final = Path(__file__).parents[1] / "fixtures" / "hq"

XML: Final = "text/xml"
JSON: Final = "application/json"
RECEIVED_ON: Final = "2015-04-17T20:14:34.046462Z"


def capture(body: bytes | str, *, label: str = "", query: str = "", **headers: str) -> Captured:
    """Return a request to the domain `demo`; header names are given with underscores."""
    return Captured(
        id="019aa0b0-0000-7000-8000-000000000001",
        time="2026-11-22T10:00:00.000000Z",
        domain="demo",
        label=label,
        method="POST",
        query=query,
        headers=[(name.replace("_", "-"), text.encode()) for name, text in headers.items()],
        body=body.encode() if isinstance(body, str) else body,
    )


def fixture(name: str, *, label: str = "") -> Captured:
    """Return one of HQ's sample bodies as HQ would send it."""
    return capture(
        (HQ / name).read_bytes(),
        label=label,
        query="app_id=db9f874f",
        content_type=JSON if name.endswith(".json") else XML,
        received_on=RECEIVED_ON,
        server_modified_on=RECEIVED_ON,
    )
