"""Cases as HQ's XML has them, in versions 1, 2 and 3 (protocol.md §6.3; 3 is written as 2)."""

from collections.abc import Iterable, Mapping
from typing import Final

from lxml import etree

from schemas.case import CaseEvent, Index
from schemas.case_fields import KNOWN, RESERVED, server_date_modified
from schemas.envelope import Captured
from schemas.fields import identifier, of_type, sent_name, time_or_null
from schemas.markup import attributes, split_tag, to_json
from schemas.values import Json

CASE: Final = "case"
V2: Final = "http://commcarehq.org/case/transaction/v2"

V1_NAMES: Final = {"case_type_id": "case_type"}
_BLOCKS: Final = frozenset({"create", "update", "index", "close"})
_ENVELOPE: Final = frozenset({"case_id", "user_id", "date_modified"})
_OWN_NAMES: Final = KNOWN | RESERVED


def is_v1_case(root: etree._Element) -> bool:
    return root.tag == CASE and root.find("case_id") is not None


def case_from_xml(root: etree._Element, captured: Captured) -> CaseEvent:
    """Read a whole case; InvalidEventError if it has no id, or its server time says no time.

    XML says neither `xform_ids` nor `date_closed` nor `attachments` as JSON has them (an
    `attachment` element passes through), and version 1 no `indices`.
    """
    namespace, _ = split_tag(root.tag)
    children = {split_tag(child.tag)[1]: child for child in root}
    properties = _properties(children, namespace)
    if namespace is None:
        sent = {name: to_json(children[name]) for name in _ENVELOPE if name in children}
        sent["user_id"] = properties.pop("user_id", None)
    else:
        sent = dict(attributes(root))
    extra = _rest(sent, children, namespace)
    return CaseEvent(
        domain=captured.domain,
        case_id=identifier(sent.get("case_id"), "case_id"),
        user_id=of_type(str, "user_id", sent, extra),
        closed="close" in children,
        xform_ids=None,
        date_closed=None,
        date_modified=time_or_null("date_modified", sent, extra),
        server_date_modified=server_date_modified({}, extra, captured),
        properties=properties,
        indices=None if namespace is None else _indices(children.get("index", ())),
        attachments=None,
        extra=extra,
    )


def _properties(children: Mapping[str, etree._Element], namespace: str | None) -> dict[str, Json]:
    """Return the properties of both blocks; of a repeated one the last counts, as in HQ."""
    properties = {
        split_tag(child.tag)[1]: to_json(child, namespace)
        for block in ("create", "update")
        for child in children.get(block, ())
    }
    if namespace is None:
        return {V1_NAMES.get(name, name): value for name, value in properties.items()}
    return properties


def _indices(elements: Iterable[etree._Element]) -> dict[str, Index]:
    """Return the indices; an empty element is HQ's mark of a removed one."""
    return {
        split_tag(element.tag)[1]: Index(
            case_type=element.get("case_type", ""),
            case_id=element.text,
            relationship=element.get("relationship", "child"),
        )
        for element in elements
        if element.text
    }


def _rest(
    sent: Mapping[str, Json], children: Mapping[str, etree._Element], namespace: str | None
) -> dict[str, Json]:
    """Return what HQ may add tomorrow, under names that are not an event's own."""
    read = _BLOCKS if namespace is not None else _BLOCKS | _ENVELOPE
    extra = {f"@{name}": text for name, text in sent.items() if name not in _ENVELOPE}
    for name, child in children.items():
        if name not in read:
            key = sent_name(name) if name in _OWN_NAMES else name
            extra[key] = to_json(child, namespace)
    return extra
