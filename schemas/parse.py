"""The way in: what CommCare HQ sent, as a typed event, and where that event belongs.

The kind is told from the body alone. Its first byte tells XML from JSON, since HQ's content types
are not to be trusted (an app id goes as text/xml); then:

- XML: a case if the root is `case` in the namespace of case XML 2, or without one and with a
  `case_id` (case XML 1); any other root is a form if its meta block has an id. A `case` in another
  namespace that is no form either is `unknown_kind`.
- JSON: an object that has all the keys of one line of `JSON_KINDS`.
- A bare hexadecimal id not sent as JSON is an app's.
- Anything else is custom if the address has a label and the body is JSON or empty.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from lxml import etree

from schemas.body import UTF16_MARKS, load_json, unpacked
from schemas.case import CaseEvent
from schemas.case_json import case_from_json
from schemas.case_xml import CASE, V2, case_from_xml, is_v1_case
from schemas.envelope import Captured
from schemas.errors import InvalidEventError
from schemas.form import FormEvent, FormStub
from schemas.form_json import form_from_json, stub_from_json
from schemas.form_xml import form_from_xml
from schemas.markup import load_xml, split_tag
from schemas.others import AppChange, CustomEvent, LocationEvent, UserEvent
from schemas.others_json import custom_from_json, location_from_json, user_from_json
from schemas.values import Json

Event: TypeAlias = (
    CaseEvent | FormEvent | FormStub | AppChange | UserEvent | LocationEvent | CustomEvent
)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an event goes: the topic's short name, its CloudEvents type, its schema."""

    topic: str
    ce_type: str
    schema: str


DESTINATIONS: Final[Mapping[type[Event], Destination]] = {
    CaseEvent: Destination("cases", "org.commcare.case.snapshot", "case/1"),
    FormEvent: Destination("forms", "org.commcare.form.submitted", "form/1"),
    FormStub: Destination("form-stubs", "org.commcare.form.stub", "form-stub/1"),
    AppChange: Destination("app-changes", "org.commcare.app.changed", "app-change/1"),
    UserEvent: Destination("users", "org.commcare.user.saved", "user/1"),
    LocationEvent: Destination("locations", "org.commcare.location.saved", "location/1"),
    CustomEvent: Destination("custom", "org.commcare.custom", "custom/1"),
}
_REFERRED: Final = Destination("forms", "org.commcare.form.referred", "form/1")
_DATA_SOURCE: Final = Destination("custom", "org.commcare.datasource.changed", "custom/1")

#: Forms that one project sends to another; they are not about this project's cases.
REFERRED_XMLNS: Final = frozenset(
    {"http://commcarehq.org/case", "http://commcarehq.org/data_registry_case_update"}
)


def destination(event: Event) -> Destination:
    if isinstance(event, FormEvent) and event.xmlns in REFERRED_XMLNS:
        return _REFERRED
    if isinstance(event, CustomEvent) and _DATA_SOURCE_KIND.fits(event.body):
        return _DATA_SOURCE
    return DESTINATIONS[type(event)]


def subject(event: Event, captured: Captured) -> str:
    """Return the id of what the event is about; of a custom one, that of its capture."""
    match event:
        case CaseEvent():
            return event.case_id
        case FormEvent() | UserEvent():
            return event.id
        case FormStub():
            return event.form_id
        case AppChange():
            return event.app_id
        case LocationEvent():
            return event.location_id
        case CustomEvent():
            return captured.id


def key(event: Event, captured: Captured) -> str:
    """Return the event's key on its topic (contract §4)."""
    if isinstance(event, CustomEvent):
        return captured.id
    return f"{event.domain}/{subject(event, captured)}"


@dataclass(frozen=True, slots=True)
class JsonKind:
    """A kind of JSON object: the key of its id, others that it always has, and its reader."""

    id_key: str
    other_keys: frozenset[str]
    read: Callable[[dict[str, Json], Captured], Event]

    def fits(self, value: Json) -> bool:
        return isinstance(value, dict) and self.id_key in value and value.keys() >= self.other_keys


_DATA_SOURCE_KIND: Final = JsonKind("data_source_id", frozenset({"data"}), custom_from_json)

#: The first that fits is taken. Answers of HQ's APIs fit none, or are what a forwarder sends.
JSON_KINDS: Final = (
    JsonKind("case_id", frozenset({"properties", "date_modified"}), case_from_json),
    JsonKind("id", frozenset({"form", "received_on"}), form_from_json),
    JsonKind("id", frozenset({"form", "metadata"}), form_from_json),
    JsonKind("form_id", frozenset({"case_ids"}), stub_from_json),
    JsonKind("id", frozenset({"username", "user_data"}), user_from_json),
    JsonKind("location_id", frozenset({"name", "site_code"}), location_from_json),
    _DATA_SOURCE_KIND,
)

_XML_STARTS: Final = (b"<", *UTF16_MARKS)
_HEX_DIGITS: Final = frozenset(b"0123456789abcdef")
_APP_ID_LENGTHS: Final = range(7, 41)
_JSON_STARTS: Final = frozenset(b'{["-0123456789tfn')
_SURE_JSON_STARTS: Final = frozenset(b'{["')


def parse(captured: Captured) -> Event:
    """Return the typed event. Raises InvalidEventError, and nothing else, for what is none.

    The method makes no difference: a DELETE carries the whole body too (protocol.md §1.0). The
    event's domain is the address's; another one in the body becomes `domain_sent`.
    """
    body = unpacked(captured)
    if body.startswith(_XML_STARTS):
        return _parse_xml(load_xml(body), captured)
    if _is_app_id(body, captured):
        return AppChange(domain=captured.domain, app_id=body.decode())
    if not body:
        return _custom(None, captured)
    return _parse_json(body, captured)


def _parse_xml(root: etree._Element, captured: Captured) -> CaseEvent | FormEvent:
    namespace, name = split_tag(root.tag)
    if (name == CASE and namespace == V2) or is_v1_case(root):
        return case_from_xml(root, captured)
    try:
        return form_from_xml(root, captured)
    except InvalidEventError as error:
        if error.cause == "missing_id" and name == CASE and namespace is not None:
            raise InvalidEventError(
                "unknown_kind", "the case is in a namespace other than that of case XML 2"
            ) from None
        raise


def _parse_json(body: bytes, captured: Captured) -> Event:
    if body[0] not in _JSON_STARTS:
        raise _unknown()
    try:
        sent = load_json(body)
    except InvalidEventError:
        if body[0] in _SURE_JSON_STARTS:
            raise
        raise _unknown() from None
    if not isinstance(sent, dict):
        return _custom(sent, captured)
    for kind in JSON_KINDS:
        if kind.fits(sent):
            return kind.read(sent, captured)
    if not captured.label:
        _refuse_without_id(sent)
    return _custom(sent, captured)


def _refuse_without_id(sent: dict[str, Json]) -> None:
    """Raise `missing_id` for what is unmistakably of a kind, but for its id."""
    for kind in JSON_KINDS:
        if len(kind.other_keys) > 1 and sent.keys() >= kind.other_keys:
            raise InvalidEventError("missing_id", "the id is missing", path=kind.id_key)


def _custom(sent: Json, captured: Captured) -> CustomEvent:
    if not captured.label:
        raise _unknown()
    return custom_from_json(sent, captured)


def _is_app_id(body: bytes, captured: Captured) -> bool:
    return (
        len(body) in _APP_ID_LENGTHS
        and _HEX_DIGITS.issuperset(body)
        and not (captured.header("content-type") or "").startswith("application/json")
    )


def _unknown() -> InvalidEventError:
    return InvalidEventError(
        "unknown_kind",
        "the body is nothing that CommCare HQ's forwarders send, "
        "and the address has no label that would make it custom",
    )
