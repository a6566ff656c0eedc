"""A case state as a row: our own columns, and a text for each property (pure)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import orjson

from schemas.case import CaseState, Index
from schemas.envelope import DOMAIN_PATTERN
from schemas.errors import RejectedRowsError, Rejection
from schemas.values import Json
from sinks.base import Message

Cell: TypeAlias = str | int | bool | None
Kind: TypeAlias = Literal["text", "time", "flag", "number", "json"]

KEY: Final = ("cw_domain", "cw_case_id")
INDEX_COLUMNS: Final = ("cw_parent_id", "cw_parent_type", "cw_indices")

#: What V1 XML (indices) and all case XML (the time of closing) cannot say (protocol.md §6.3).
UNSAYABLE: Final = ("cw_date_closed", *INDEX_COLUMNS)

#: The columns that every table of a case type has beside those of its properties.
OWN_COLUMNS: Final[Mapping[str, Kind]] = {
    "cw_domain": "text",
    "cw_case_id": "text",
    "cw_closed": "flag",
    "cw_date_closed": "time",
    "cw_date_modified": "time",
    "cw_server_date_modified": "time",
    "cw_user_id": "text",
    "cw_parent_id": "text",
    "cw_parent_type": "text",
    "cw_indices": "json",
    "cw_version": "number",
    "cw_deleted": "flag",
    "cw_doubtful": "flag",
    "cw_source": "text",
    "cw_overflow": "json",
}

_DOMAIN: Final = re.compile(DOMAIN_PATTERN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A case state as a sink writes it.

    `own` holds our columns but `cw_overflow`, `properties` the text of each property that is not
    null. `kept` names the columns that the state's format cannot say: they are not in `own`, and
    a row that is there already keeps what it has.
    """

    domain: str
    case_id: str
    case_type: str
    version: int
    deleted: bool
    own: Mapping[str, Cell]
    properties: Mapping[str, str]
    kept: frozenset[str]


def cases(messages: Sequence[Message]) -> Sequence[CaseState]:
    """Return the case states of messages of `case-state`."""
    return [message.event for message in messages if isinstance(message.event, CaseState)]


def prepared(states: Sequence[CaseState], *, takes_nul: bool) -> Sequence[Row]:
    """Return the row of each state, in order.

    Raises RejectedRowsError for all states that hold text which the target does not take: lone
    surrogates, which are not UTF-8, and NUL unless it `takes_nul`.
    """
    rows: list[Row] = []
    rejections: dict[int, Rejection] = {}
    for number, state in enumerate(states):
        try:
            row = case_row(state)
        except TypeError:  # orjson's word for text that is not UTF-8
            row = None
        if row is not None and _is_clean(state, row, takes_nul=takes_nul):
            rows.append(row)
        else:
            rejections[number] = _rejection(state, takes_nul=takes_nul)
    if rejections:
        raise RejectedRowsError(rejections)
    return rows


def case_row(state: CaseState) -> Row:
    """Return the state's row. Raises TypeError if a value has no JSON text."""
    own: dict[str, Cell] = {
        "cw_domain": state.domain,
        "cw_case_id": state.case_id,
        "cw_closed": state.closed,
        "cw_date_closed": state.date_closed,
        "cw_date_modified": state.date_modified,
        "cw_server_date_modified": state.server_date_modified,
        "cw_user_id": state.user_id,
        **_index_cells(state.indices),
        "cw_version": state.version,
        "cw_deleted": state.deleted,
        "cw_doubtful": state.doubtful,
        "cw_source": state.source,
    }
    kept = set() if state.indices is not None else set(INDEX_COLUMNS)
    if state.closed and state.date_closed is None:
        kept.add("cw_date_closed")
        del own["cw_date_closed"]
    return Row(
        domain=state.domain,
        case_id=state.case_id,
        case_type=state.case_type,
        version=state.version,
        deleted=state.deleted,
        own=own,
        properties={
            name: value if isinstance(value, str) else _json(value)
            for name, value in state.properties.items()
            if value is not None
        },
        kept=frozenset(kept),
    )


def filled(row: Row, held: Mapping[str, Cell]) -> Row:
    """Return the row with the columns that it keeps taken from the row that it replaces."""
    kept = {column: held.get(column) for column in row.kept}
    return replace(row, own={**row.own, **kept}, kept=frozenset())


def cells(row: Row, columns: Mapping[str, str]) -> Mapping[str, Cell]:
    """Return the row by column; a column that is missing is null, or kept.

    `columns` maps properties to their columns. Those without one are in `cw_overflow`, as JSON.
    """
    by_column = dict(row.own)
    overflow: dict[str, str] = {}
    for source, text in row.properties.items():
        column = columns.get(source)
        if column is None:
            overflow[source] = text
        else:
            by_column[column] = text
    if overflow:
        by_column["cw_overflow"] = _json(overflow)
    return by_column


def parent_of(indices: Mapping[str, Index]) -> Index | None:
    """Return the index `parent`, else `host`, else the only one there is."""
    for identifier in ("parent", "host"):
        if identifier in indices:
            return indices[identifier]
    return next(iter(indices.values())) if len(indices) == 1 else None


def _index_cells(indices: Mapping[str, Index] | None) -> Mapping[str, Cell]:
    if indices is None:
        return {}
    parent = parent_of(indices)
    return {
        "cw_parent_id": parent["case_id"] if parent else None,
        "cw_parent_type": parent["case_type"] if parent else None,
        "cw_indices": _json(indices),
    }


def _every_text(value: Json) -> str:
    """Return a text that holds whatever characters the value holds at any depth."""
    if isinstance(value, Mapping):
        return "".join(map(_every_text, (*value, *value.values())))
    return "".join(map(_every_text, value)) if isinstance(value, list) else str(value)


def _json(value: Json) -> str:
    return orjson.dumps(value).decode()


def _is_clean(state: CaseState, row: Row, *, takes_nul: bool) -> bool:
    text = "".join((*row.properties, *row.properties.values(), *_own_texts(state).values()))
    return _DOMAIN.fullmatch(state.domain) is not None and _is_takable(text, takes_nul=takes_nul)


def _is_takable(text: str, *, takes_nul: bool) -> bool:
    if "\0" in text and not takes_nul:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _own_texts(state: CaseState) -> Mapping[str, str]:
    indices = "".join(
        f"{identifier} {index['case_type']} {index['case_id']} {index['relationship']} "
        for identifier, index in (state.indices or {}).items()
    )
    return {"case_id": state.case_id, "user_id": state.user_id or "", "indices": indices}


def _rejection(state: CaseState, *, takes_nul: bool) -> Rejection:
    if not _DOMAIN.fullmatch(state.domain):
        return Rejection("invalid_field", "this is no name of a project space", path="domain")
    for path, text in _texts(state):
        if not _is_takable(text, takes_nul=takes_nul):
            what = "a NUL character" if "\0" in text else "text that is not UTF-8"
            return Rejection("invalid_field", f"the database does not take {what}", path=path)
    return Rejection("invalid_field", "a property has no JSON text", path="properties")


def _texts(state: CaseState) -> Iterator[tuple[str, str]]:
    yield from _own_texts(state).items()
    for name in state.properties:
        yield "properties", name
    for name, value in state.properties.items():
        yield f"properties.{name}", value if isinstance(value, str) else _every_text(value)
