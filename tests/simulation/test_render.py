"""Rendered bodies: HQ's samples byte for byte, and what they say when they are parsed again."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from lxml import etree

from casewire.hq import Request
from casewire.simulation import render
from casewire.simulation.delivery import BROKEN, deliver
from casewire.simulation.history import Plan, make_history
from casewire.simulation.model import Block, Case, Form, Index
from schemas.case import CaseEvent
from schemas.envelope import Captured
from schemas.errors import Cause, InvalidEventError
from schemas.form import FormEvent
from schemas.parse import parse

SAMPLES = Path(__file__).parent.parent / "fixtures" / "hq"
CHILD = Index("household", "eb1a8c23-6d6d-4b61-894c-ae1c437d8dac")


def time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


ELIZABETH = Case(
    case_id="79e25a30-8db5-4a5a-827b-0297b254e87f",
    server_modified_on=time("2020-03-19T14:31:35.139959"),
    date_modified=time("2020-03-19T14:31:34.133"),
    user_id="06414101dc45bcfdc963b8cb1a1ebdfd",
    case_type="patient",
    name="Elizabeth Harmon",
    owner_id="20cc9dda-b90a-4af3-aa3d-fc67184e73ef",
    external_id="1",
    date_opened=time("2020-03-19T14:31:34.133"),
    xform_ids=("3HQEXR2S0GIRFY2GF40HAR7ZE",),
    properties={"dob": "1948-11-02", "gender": "f"},
    indices={"parent": CHILD},
)
CLOSED = replace(
    ELIZABETH,
    server_modified_on=time("2020-04-01T08:00:03.000001"),
    date_modified=time("2020-04-01T08:00:00"),
    date_closed=time("2020-04-01T08:00:00"),
    closed=True,
    xform_ids=(*ELIZABETH.xform_ids, "1de6ee6b-3f3e-4a5e-9d80-71e2ce1b1e9f"),
)
REMOVED = replace(
    ELIZABETH,
    server_modified_on=time("2020-03-20T10:00:00.5"),
    xform_ids=(*ELIZABETH.xform_ids, "f-index-removed"),
    indices={"parent": replace(CHILD, case_id="")},
)


@pytest.mark.parametrize(
    ("case", "sample"),
    [(ELIZABETH, "open"), (CLOSED, "closed"), (REMOVED, "index_removed")],
)
def test_case_json_is_that_of_hq(case: Case, sample: str) -> None:
    body = orjson.loads((SAMPLES / f"case_json_current_{sample}.json").read_bytes())
    assert render.case_json(case, "demo") == render.encoded(body)


def test_case_xml_is_that_of_hq() -> None:
    two = replace(ELIZABETH, indices={"parent": CHILD, "host": Index("contact", "1", "extension")})
    assert render.case_xml(two) == (SAMPLES / "case_xml_v2_full.xml").read_bytes().strip()
    closed = replace(CLOSED, indices={}, properties={"dob": "1948-11-02"})
    assert render.case_xml(closed) == (SAMPLES / "case_xml_v2_closed.xml").read_bytes().strip()


def test_case_xml_of_version_1_is_that_of_hq() -> None:
    case = replace(ELIZABETH, properties={"dob": "1948-11-02"})
    assert render.case_xml_v1(case) == (SAMPLES / "case_xml_v1.xml").read_bytes().strip()


def test_form_json_has_the_keys_of_hq_in_its_order() -> None:
    body = orjson.loads(render.form_json(FORM, "demo"))
    sample = orjson.loads((SAMPLES / "form_json_full.json").read_bytes())
    assert list(body) == list(sample)


BLOCK = Block(
    case_id="c1",
    user_id="u1",
    date_modified=time("2026-01-01T10:00:00.123"),
    create={"case_type": "person", "case_name": "Ōka <&> Sample", "owner_id": "o1"},
    update={"note": "", "visited-on": "🌾"},
    index={"parent": Index("household", "h1"), "host": Index("household", "h1", "extension")},
)
FORM = Form(
    id="f1",
    name="follow up",
    user_id="u1",
    username="worker1",
    app_id="a1",
    received_on=time("2026-01-01T10:00:01.5"),
    edited_on=None,
    started_on=time("2026-01-01T09:59:00"),
    ended_on=time("2026-01-01T10:00:00.123"),
    device_offset=330,
    blocks=(BLOCK, replace(BLOCK, case_id="c2"), replace(BLOCK, case_id="c3")),
)


def test_form_xml_has_the_times_of_the_device() -> None:
    root = etree.fromstring(render.form_xml(FORM))
    blocks = root.findall(".//{*}case")
    assert [block.get("case_id") for block in blocks] == ["c1", "c2", "c3"]
    assert {block.get("date_modified") for block in blocks} == {"2026-01-01T15:30:00.123+05:30"}
    assert root.findtext(".//{*}visited-on") == "🌾"


def captured(body: bytes, *headers: tuple[str, bytes], label: str = "") -> Captured:
    return Captured("id", "2026-11-22T10:00:00.000000Z", "demo", label, "POST", "", headers, body)


def test_a_form_says_the_same_in_xml_and_json() -> None:
    as_json = parse(captured(render.form_json(FORM, "demo")))
    as_xml = parse(captured(render.form_xml(FORM)))
    assert isinstance(as_json, FormEvent)
    assert isinstance(as_xml, FormEvent)
    blocks = [each["case"]["update"] for each in as_json.form["member"]]
    assert blocks == [each["case"]["update"] for each in as_xml.form["member"]]
    assert as_json.id == as_xml.id
    assert as_json.xmlns == as_xml.xmlns


@pytest.mark.parametrize("case", [ELIZABETH, CLOSED, REMOVED])
def test_a_case_says_the_same_in_xml_and_json(case: Case) -> None:
    header = ("server-modified-on", b"2026-01-01T00:00:00.000000Z")
    as_json = parse(captured(render.case_json(case, "demo"), header))
    as_xml = parse(captured(render.case_xml(case), header))
    assert isinstance(as_json, CaseEvent)
    assert isinstance(as_xml, CaseEvent)
    assert as_json.indices == as_xml.indices
    assert as_json.closed == as_xml.closed


def cause_of(request: Request) -> Cause | None:
    """Return the cause of the dead letter that the product makes of a request, if it does."""
    headers = [(name, value.encode()) for name, value in request.headers]
    headers.append(("content-type", request.content_type.encode()))
    try:
        event = parse(captured(request.body, *headers, label=request.label))
    except InvalidEventError as error:
        return error.cause
    assert request.subject in event.to_json().decode()
    return None


def test_every_good_body_is_read_and_every_broken_one_has_its_cause() -> None:
    history = make_history(3, datetime(2026, 11, 22, 10, tzinfo=UTC), Plan(cases=20, changes=300))
    for request in deliver(history, 3, broken=len(BROKEN)):
        assert cause_of(request) == request.cause, request.subject
