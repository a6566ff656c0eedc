"""Cases as HQ's JSON has them (protocol.md §6.4)."""

from schemas.case import CaseEvent, Index
from schemas.case_fields import KNOWN, RESERVED, server_date_modified
from schemas.envelope import Captured
from schemas.errors import InvalidEventError
from schemas.fields import identifier, mapping, of_type, passed_through, texts, time_or_null
from schemas.values import Json


def case_from_json(sent: dict[str, Json], captured: Captured) -> CaseEvent:
    extra = passed_through(sent, KNOWN, RESERVED, captured.domain)
    xform_ids = sent.get("xform_ids")
    return CaseEvent(
        domain=captured.domain,
        case_id=identifier(sent["case_id"], "case_id"),
        user_id=of_type(str, "user_id", sent, extra),
        closed=_closed(sent),
        xform_ids=None if xform_ids is None else texts(xform_ids, "xform_ids"),
        date_closed=time_or_null("date_closed", sent, extra),
        date_modified=time_or_null("date_modified", sent, extra),
        server_date_modified=server_date_modified(sent, extra, captured),
        properties=mapping("properties", sent),
        indices=_indices(sent),
        attachments=of_type(dict, "attachments", sent, extra),
        extra=extra,
    )


def _closed(sent: dict[str, Json]) -> bool:
    closed = sent.get("closed", False)
    if not isinstance(closed, bool):
        raise InvalidEventError("invalid_field", "the field is not true or false", path="closed")
    return closed


def _indices(sent: dict[str, Json]) -> dict[str, Index] | None:
    if sent.get("indices") is None:
        return None
    indices: dict[str, Index] = {}
    for name, index in mapping("indices", sent).items():
        if not isinstance(index, dict):
            raise InvalidEventError(
                "invalid_field", "the index is not an object", path=f"indices.{name}"
            )
        case_id = _text(index, "case_id", name)
        if not case_id:  # HQ's mark of a removed index
            continue
        indices[name] = Index(
            case_type=_text(index, "case_type", name),
            case_id=case_id,
            relationship=_text(index, "relationship", name) or "child",
        )
    return indices


def _text(index: dict[str, Json], key: str, name: str) -> str:
    value = index.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidEventError(
            "invalid_field", "the field is not a string", path=f"indices.{name}.{key}"
        )
    return value
