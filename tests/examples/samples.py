"""Sample records for docs/topics.md and schemas/asyncapi.yaml.

The product's own functions make them of HQ's sample bodies: nothing here is written by hand but
what HQ would send, and the ids of captured events.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

import orjson

from ingress.records import Event, claim_records
from schemas.asyncapi import Sample
from schemas.envelope import Address, Headers, captured_headers
from schemas.errors import InvalidEventError
from schemas.times import from_datetime
from schemas.topics import MEBIBYTE
from streams.alarms import as_record
from streams.dead_letters import dead_letter, rejection_of
from streams.decode import decode
from streams.flood import LEAST, Gate, alert, captured_kind
from streams.ledger import Ledger
from streams.records import Out
from streams.replays import again, typed_again
from streams.state import (
    STAGE,
    Judge,
    case_judge,
    change_judge,
    form_judge,
    location_judge,
    user_judge,
)
from tests.schemas.captures import HQ
from tests.streams.made import Made

RECEIVED: Final = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
WRITER: Final = "streams-1/4711/5f0c2a9e"
WINDOW: Final = 10_000_000
FAILED_AT: Final = "2026-11-22T10:00:00.250000Z"

CASE: Final = "case_json_current_open.json"
FORM: Final = "form_json_full.json"
XML_FORM: Final = "form_xml_repeater_test_update.xml"
#: A form by which one project refers a case to another is told by its namespace (protocol.md §1.1).
REFERRAL: Final = (
    (HQ / XML_FORM)
    .read_bytes()
    .replace(b"https://www.commcarehq.org/test/repeater/", b"http://commcarehq.org/case")
)
MODIFIED: Final = "2020-03-19T14:31:35.139959Z"


@dataclass(frozen=True, slots=True)
class Sent:
    """A request of HQ's: its body, what its headers say besides, and its address."""

    body: bytes
    content_type: str
    headers: Headers = ()
    domain: str = "demo"
    label: str = ""
    query: str = ""


class Ingress:
    """Captures requests as the ingress does, a second apart, with ids that are always the same."""

    def __init__(self) -> None:
        self._numbers = count()

    def capture(self, sent: Sent) -> Made:
        number = next(self._numbers)
        time = RECEIVED + timedelta(seconds=number)
        milliseconds = f"{int(time.timestamp()) * 1000:012x}"
        event_id = f"{milliseconds[:8]}-{milliseconds[8:]}-7000-8000-{number:012x}"
        path = f"/api/v1/in/{sent.domain}" + (f"/{sent.label}" if sent.label else "")
        address = Address(
            domain=sent.domain, label=sent.label, method="POST", path=path, query=sent.query
        )
        request = [
            ("host", b"data.example.org"),
            ("user-agent", b"python-requests/2.34.2"),
            ("accept-encoding", b"gzip, deflate"),
            ("accept", b"*/*"),
            ("connection", b"keep-alive"),
            ("content-type", sent.content_type.encode()),
            *sent.headers,
            ("content-length", str(len(sent.body)).encode()),
        ]
        headers = captured_headers(event_id, from_datetime(time), address, request)
        return Made(sent.body, event_id.encode(), headers, "casewire.captured", 3, 1041)


def samples() -> Sequence[Sample]:
    """Return samples of every kind of `schemas.asyncapi.MESSAGES`, always the same."""
    ingress = Ingress()
    made: Sequence[Callable[[Ingress], Iterator[Sample]]] = (
        _cases,
        _forms,
        _others,
        _failures,
        _pieces,
        _alerts,
    )
    return [sample for make in made for sample in make(ingress)]


def _cases(ingress: Ingress) -> Iterator[Sample]:
    judge = case_judge(writer=WRITER, window_microseconds=WINDOW)
    captured = ingress.capture(_case_json())
    yield _sample("captured", "A case, forwarded as JSON", captured)
    snapshot = _decoded(captured)
    yield _sample("case-snapshot", "From JSON", snapshot)
    once_more = again(snapshot, snapshot.key or b"", "state", attempts=2)
    [(_, (replayed,))] = typed_again([Made(once_more.value, once_more.key, once_more.headers)])[
        0
    ].items()
    yield _sample("case-snapshot", "One that was a dead letter, replayed", replayed)
    xml = Sent(
        (HQ / "case_xml_v2_full.xml").read_bytes(),
        "text/xml",
        [("server-modified-on", MODIFIED.encode())],
    )
    yield _sample("case-snapshot", "From XML, which says less", _decoded(ingress.capture(xml)))
    state = _published(judge, snapshot, None)
    yield _sample("case-state", "A case that is open", state)
    earlier = _case_json(
        xform_ids=["3HQEXR2S0GIRFY2GF40HAR7ZE", "other"],
        server_date_modified="2020-03-19T14:31:30.000000Z",
    )
    disputed = _published(judge, _decoded(ingress.capture(earlier)), state.value)
    yield _sample("case-state", "A case whose latest state is doubtful", disputed)
    gone = _case_json(
        xform_ids=[],
        properties={"case_type": "", "case_name": "", "owner_id": "", "external_id": None},
        indices={},
        server_date_modified="2026-11-22T10:00:00.000000Z",
    )
    deleted = _published(judge, _decoded(ingress.capture(gone)), state.value)
    yield _sample("case-state", "A case that is gone", deleted)


def _case_json(**changes: object) -> Sent:
    sent = orjson.loads((HQ / CASE).read_bytes()) | changes
    modified = str(sent["server_date_modified"]).encode()
    return Sent(orjson.dumps(sent), "application/json", [("server-modified-on", modified)])


def _forms(ingress: Ingress) -> Iterator[Sample]:
    judge = form_judge(writer=WRITER)
    first = _decoded(ingress.capture(_form(FORM, "application/json")))
    yield _sample("form-submitted", "From JSON", first)
    xml = _decoded(ingress.capture(_form(XML_FORM, "text/xml")))
    yield _sample("form-submitted", "From XML", xml)
    yield _sample("form-state", "From XML", _published(judge, xml, None))
    [change] = decode(ingress.capture(_form(XML_FORM, "text/xml"))).changes
    yield _sample("case-changed", "The form's case block", change)
    block = Made(change.value, change.key, change.headers, "casewire.case-changes")
    folded = change_judge(writer=WRITER, window_microseconds=WINDOW)(block, None)
    if folded.publish is None:
        raise AssertionError("a block of a case without a state makes one")
    yield _sample("case-state", "A case that is known from a form only", folded.publish)
    held = _published(judge, first, None)
    edited = _decoded(ingress.capture(_form("form_json_edited.json", "application/json")))
    yield _sample("form-state", "Edited in HQ", _published(judge, edited, held.value))
    yield _sample(
        "form-referred",
        "A case that another project refers",
        _decoded(ingress.capture(Sent(REFERRAL, "text/xml"))),
    )
    stub = _form("form_stub.json", "application/json")
    yield _sample("form-stub", "A stub", _decoded(ingress.capture(replace(stub, query=""))))


def _form(name: str, content_type: str) -> Sent:
    received = ("received-on", b"2016-11-29T14:50:42.530616Z")
    domain = "my-project" if name.endswith(".json") else "demo"
    body = (HQ / name).read_bytes()
    return Sent(body, content_type, [received], domain=domain, query="app_id=effb341b")


def _others(ingress: Ingress) -> Iterator[Sample]:
    sent = {
        "app-changed": _other("app_structure_body.txt", "text/xml"),
        "user-saved": _other("user.json", "application/json", domain="user-repeater"),
        "location-saved": _other("location.json", "application/json", domain="loc-repeat"),
        "datasource-changed": _other("datasource.json", "application/json", label="estimates"),
        "custom": Sent(b'{"arrivals": 3}', "application/json", label="arrivals"),
    }
    for message, request in sent.items():
        event = _decoded(ingress.capture(request))
        yield _sample(message, "As it was sent", event)
        if message in _JUDGES:
            kind, judge = _JUDGES[message]
            yield _sample(kind, "As last saved", _published(judge, event, None))


_JUDGES: Final[Mapping[str, tuple[str, Judge]]] = {
    "user-saved": ("user-state", user_judge(writer=WRITER)),
    "location-saved": ("location-state", location_judge(writer=WRITER)),
}


def _other(name: str, content_type: str, *, domain: str = "demo", label: str = "") -> Sent:
    body = (HQ / name).read_bytes().strip()
    return Sent(body, content_type, domain=domain, label=label)


def _failures(ingress: Ingress) -> Iterator[Sample]:
    broken = ingress.capture(Sent(b'<case case_id="c1">', "text/xml"))
    try:
        decode(broken)
    except InvalidEventError as error:
        letter = dead_letter(broken, "decode", rejection_of(error), failed_at=FAILED_AT)
        yield _sample("dead-letter", "A body that is no XML", letter)
    ledger = Ledger(STAGE, written="applied")
    first = replace(_decoded(ingress.capture(_case_json())), partition=3, offset=512)
    second = replace(_decoded(ingress.capture(_case_json())), partition=3, offset=513)
    ledger.add(first, "applied")
    ledger.add(second, "duplicate")
    batch, event = ledger.records()
    yield _sample("batch-delivery", "Two snapshots, of which one changed nothing", batch)
    yield _sample("event-delivery", "The one that changed nothing", event)


def _pieces(ingress: Ingress) -> Iterator[Sample]:
    whole = ingress.capture(Sent(b"<data>" + b" " * MEBIBYTE, "text/xml"))
    event = Event((whole.key or b"").decode(), whole.headers, whole.value or b"")
    first, _, claim = claim_records(event, hashlib.sha256(event.body).hexdigest())
    shown = (first.value or b"")[:6]
    yield Sample("body-piece", "The first piece (shortened)", first.key, first.headers, shown)
    yield Sample("captured", "A body in pieces", claim.key, claim.headers, claim.value)


def _alerts(ingress: Ingress) -> Iterator[Sample]:
    """Yield the alert of a worker on which every form fails that a project space sends."""
    form = ingress.capture(_form(XML_FORM, "text/xml"))
    forms = [replace(form, offset=number) for number in range(LEAST)]
    why = rejection_of(ZeroDivisionError())
    flood = Gate("decode", captured_kind, limit=0.9).look(forms, [(each, why) for each in forms])
    if flood is None:
        raise AssertionError("all of them failed")
    stopped = alert(replace(flood, captured_ids=flood.captured_ids[:1]), raised_at=FAILED_AT)
    yield _sample("alert", "Nearly all forms fail: the worker stops", as_record(stopped))


def _decoded(captured: Made) -> Made:
    decoded = decode(captured)
    out = decoded.out
    return Made(out.value, out.key, out.headers, f"casewire.{decoded.topic}")


def _published(judge: Judge, event: Made, held: bytes | None) -> Out:
    published = judge(event, held).publish
    if published is None:
        raise AssertionError("the sample changes nothing")
    return published


def _sample(message: str, says: str, record: Made | Out) -> Sample:
    return Sample(message, says, record.key or b"", record.headers, record.value)
