"""What forms say of cases: the case blocks inside them, one event a block (protocol.md §7)."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, TypedDict

from schemas.case import Index
from schemas.case_xml import V1_NAMES, V2
from schemas.fields import sent_name, time_or_null
from schemas.form import FormEvent
from schemas.form_fields import case_blocks
from schemas.markup import text_of
from schemas.values import Json, Value

AttachmentChange = TypedDict(
    "AttachmentChange", {"src": str | None, "from": str | None, "name": str | None}
)
"""A file that a block attaches. All three null: the attachment of that name is deleted."""


class CaseChange(Value, frozen=True, kw_only=True):
    """A case block of a form, with HQ's meaning.

    `ordinal` counts the form's blocks from 1, in the order in which HQ reads them; `block` counts
    those for this case, of which there are `blocks`. `xmlns` is the form's. `user_id` is the
    block's, or the form's. `create` and `update` hold the properties as sent, under the names of
    case XML 2, None if they say nothing; of a repeated one the last counts. A blank value of
    `case_type`, `case_name`, `owner_id`, `external_id` or `date_opened` changes nothing. An index
    with an empty `case_id` is removed. A block without any of these says that the form touched the
    case. `extra` holds what else was in the block.
    """

    domain: str
    case_id: str
    form_id: str
    ordinal: int
    block: int
    blocks: int
    xmlns: str
    user_id: str | None
    date_modified: str | None
    received_on: str | None
    server_modified_on: str | None
    edited_on: str | None
    create: Mapping[str, Json] | None
    update: Mapping[str, Json] | None
    close: bool
    index: Mapping[str, Index] | None
    attachment: Mapping[str, AttachmentChange] | None


_DATE_MODIFIED: Final = "date_modified"
_ACTIONS: Final = frozenset({"create", "update", "close", "index", "attachment"})
_V1_ENVELOPE: Final = frozenset({"case_id", _DATE_MODIFIED})
_V2_ENVELOPE: Final = frozenset(
    {"@xmlns", "@case_id", "@user_id", "@date_modified", sent_name("@date_modified")}
)


def case_changes(form: FormEvent) -> Iterator[CaseChange]:
    """Yield what the form's case blocks say.

    A block without an id that could be a case's is none: HQ refuses a form that has one.
    """
    blocks = [(_case_id(block), block) for block in case_blocks(form.form)]
    named = [(case_id, block) for case_id, block in blocks if case_id]
    totals = Counter(case_id for case_id, _ in named)
    seen: Counter[str] = Counter()
    user_id = _user_of(form)
    for ordinal, (case_id, block) in enumerate(named, start=1):
        seen[case_id] += 1
        is_v2 = "@case_id" in block
        extra = _rest(block, is_v2=is_v2)
        yield CaseChange(
            domain=form.domain,
            case_id=case_id,
            form_id=form.id,
            ordinal=ordinal,
            block=seen[case_id],
            blocks=totals[case_id],
            xmlns=form.xmlns,
            user_id=_text(block.get("@user_id")) or user_id,
            date_modified=_date_modified(block, extra, is_v2=is_v2),
            received_on=form.received_on,
            server_modified_on=form.server_modified_on,
            edited_on=form.edited_on,
            create=_properties(block.get("create"), is_v2=is_v2),
            update=_properties(block.get("update"), is_v2=is_v2),
            close="close" in block,
            index=_indices(block.get("index")) if is_v2 else None,
            attachment=_attachments(block.get("attachment")) if is_v2 else None,
            extra=extra,
        )


def _case_id(block: Mapping[str, Json]) -> str:
    """Return the id of the block's case, empty if it is none of HQ's case blocks."""
    xmlns = block.get("@xmlns")
    if "@case_id" in block:
        case_id = block["@case_id"] if xmlns in (None, V2) else ""
    else:
        case_id = text_of(block.get("case_id")) if xmlns is None else ""
    return case_id if isinstance(case_id, str) and case_id.strip() else ""


def _user_of(form: FormEvent) -> str | None:
    metadata = form.metadata or {}
    meta = form.form.get("meta")
    sent = metadata.get("userID") or (meta.get("userID") if isinstance(meta, dict) else None)
    return _text(sent)


def _text(value: Json) -> str | None:
    text = text_of(value)
    return text if isinstance(text, str) and text else None


def _date_modified(block: dict[str, Json], extra: dict[str, Json], *, is_v2: bool) -> str | None:
    """Return the block's time. That of case XML 2 is canonical in the form already."""
    if not is_v2:
        return time_or_null(
            _DATE_MODIFIED, {_DATE_MODIFIED: _text(block.get(_DATE_MODIFIED))}, extra
        )
    sent = sent_name("@date_modified")
    if sent in block:
        extra[sent_name(_DATE_MODIFIED)] = block[sent]
    return _text(block.get("@date_modified"))


def _properties(sent: Json, *, is_v2: bool) -> dict[str, Json] | None:
    if not isinstance(sent, dict):
        return None
    said = {name: _last(value) for name, value in sent.items() if name[:1] not in ("@", "#")}
    if not is_v2:
        said = {V1_NAMES.get(name, name): value for name, value in said.items()}
    return said or None


def _last(value: Json) -> Json:
    return value[-1] if isinstance(value, list) and value else value


def _indices(sent: Json) -> dict[str, Index] | None:
    return {name: _index(value) for name, value in _elements(sent)} or None


def _index(sent: Json) -> Index:
    attributes = sent if isinstance(sent, dict) else {}
    return Index(
        case_type=_text(attributes.get("@case_type")) or "",
        case_id=_text(sent) or "",
        relationship=_text(attributes.get("@relationship")) or "child",
    )


def _attachments(sent: Json) -> dict[str, AttachmentChange] | None:
    return {name: _attachment(value) for name, value in _elements(sent)} or None


def _attachment(sent: Json) -> AttachmentChange:
    attributes = sent if isinstance(sent, dict) else {}
    return {
        "src": _text(attributes.get("@src")),
        "from": _text(attributes.get("@from")),
        "name": _text(attributes.get("@name")),
    }


def _elements(sent: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(sent, dict):
        for name, value in sent.items():
            if name[:1] not in ("@", "#"):
                yield name, _last(value)


def _rest(block: Mapping[str, Json], *, is_v2: bool) -> dict[str, Json]:
    """Return what the block holds besides, under names that are not an event's own."""
    read = _ACTIONS | (_V2_ENVELOPE if is_v2 else _V1_ENVELOPE)
    own = CaseChange.names()
    return {
        sent_name(name) if name in own else name: value
        for name, value in block.items()
        if name not in read
    }
