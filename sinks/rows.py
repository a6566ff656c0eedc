"""States as rows: our own columns, and a text for each thing that was sent (pure)."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias

import msgspec
import orjson

from schemas.case import CaseState, Index
from schemas.envelope import DOMAIN_PATTERN
from schemas.errors import RejectedRowsError, Rejection
from schemas.form import FormState
from schemas.values import Json
from sinks.answers import Found, placed
from sinks.base import Message
from sinks.layout import CASES, FAMILIES, FORMS, INDEX_COLUMNS, Family

Cell: TypeAlias = str | int | bool | None

_DOMAIN: Final = re.compile(DOMAIN_PATTERN)
_TEXT: Final = frozenset({str})
#: The columns of a case that hold text as it was sent; the others' is canonical, or our own.
_SENT: Final = ("cw_case_id", "cw_user_id", "cw_indices")
#: PostgreSQL's indexes take keys of 2,704 bytes.
_LONG_KEY: Final = 600
_TIMES: Final = {
    state: [name for name, kind in family.layout.own.items() if kind == "time"]
    for state, family in FAMILIES.items()
}
_NUL_IN_JSON: Final = b"\\u0000"


class Line(msgspec.Struct, frozen=True):
    """A row of one table. A struct, as values are: one is made for each event.

    `own` holds our columns but `cw_overflow`, `properties` the text of each thing that is not
    null. `kept` names the columns that the state's format cannot say: they are not in `own`, and
    a row that is there already keeps what it has.
    """

    own: Mapping[str, Cell]
    properties: Mapping[str, str]
    kept: frozenset[str] = frozenset()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A state as a sink writes it: one line, and for a form those of its repeats.

    `group` is the case type, or the form's xmlns; `title` the name that people know a form by;
    `indices` a case's, each as its identifier and the parent's type (`parent/household`).
    A form's `answers` become lines when it is known which of them are repeats.
    """

    family: Family
    domain: str
    id: str
    group: str
    title: str = ""
    version: int
    deleted: bool
    line: Line
    indices: Sequence[str] = ()
    answers: Mapping[str, Json] = {}

    def lines(self, repeats: Collection[str]) -> Mapping[str, Sequence[Line]]:
        """Return the lines by path, the state's own one at "".

        `repeats` holds the paths that are repeats even where a form has one object there.
        """
        if not self.answers:
            return {"": (self.line,)}
        found = placed(self.answers, repeats)
        lines: dict[str, Sequence[Line]] = {
            path: [self._inner(each) for each in inner] for path, inner in found.repeats.items()
        }
        lines[""] = (msgspec.structs.replace(self.line, properties=found.texts),)
        return lines

    def _inner(self, found: Found) -> Line:
        place = found.place
        own: dict[str, Cell] = {
            "cw_domain": self.domain,
            "cw_form_id": self.id,
            "cw_path": place.path,
            "cw_ordinal": place.ordinal,
            "cw_parent_path": place.parent,
        }
        return Line(own, found.texts)


def prepared(messages: Sequence[Message], *, takes_nul: bool) -> Sequence[Row]:
    """Return the rows of states. Raises RejectedRowsError if one has none (`rows_of`)."""
    found = rows_of(messages, takes_nul=takes_nul)
    rows = [row for row in found if not isinstance(row, Rejection)]
    if len(rows) < len(found):
        raise RejectedRowsError(
            {place: why for place, why in enumerate(found) if isinstance(why, Rejection)}
        )
    return rows


def rows_of(messages: Sequence[Message], *, takes_nul: bool) -> Sequence[Row | Rejection]:
    """Return the row of each state, in order, or why there is none.

    That is so for text which the target does not take: lone surrogates, which are not UTF-8, and
    NUL unless it `takes_nul`.
    """
    rows: list[Row | Rejection] = []
    cases = _clean_cases([m.event for m in messages if isinstance(m.event, CaseState)])
    for message in messages:
        state = message.event
        row: Row | None = None
        if isinstance(state, CaseState):
            row = next(cases, None) or _clean_case(state, takes_nul=takes_nul)
        elif isinstance(state, FormState):
            row = _clean_form(state, takes_nul=takes_nul)
        else:
            raise TypeError("a table holds latest states")
        rows.append(_rejection(state, takes_nul=takes_nul) if row is None else row)
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
    properties = state.properties
    if not {*map(type, properties.values())} <= _TEXT:
        properties = {
            name: value if isinstance(value, str) else json_text(value)
            for name, value in properties.items()
            if value is not None
        }
    return Row(
        family=CASES,
        domain=state.domain,
        id=state.case_id,
        group=state.case_type,
        version=state.version,
        deleted=state.deleted,
        line=Line(own, properties, frozenset(kept)),
        indices=[*_index_sources(state.indices or {})],
    )


def form_row(state: FormState) -> Row:
    """Return the state's row. An archived form is gone. Raises TypeError as `case_row` does."""
    metadata = state.metadata or {}
    title = _text(state.form.get("@name"))
    own: dict[str, Cell] = {
        "cw_domain": state.domain,
        "cw_form_id": state.id,
        "cw_xmlns": state.xmlns,
        "cw_name": title,
        "cw_app_id": state.app_id,
        "cw_app_version": state.version,
        "cw_build_id": state.build_id,
        "cw_received_on": state.received_on,
        "cw_server_modified_on": state.server_modified_on,
        "cw_edited_on": state.edited_on,
        "cw_edited_by_user_id": state.edited_by_user_id,
        "cw_time_start": _text(metadata.get("timeStart")),
        "cw_time_end": _text(metadata.get("timeEnd")),
        "cw_user_id": _text(metadata.get("userID")),
        "cw_username": _text(metadata.get("username")),
        "cw_device_id": _text(metadata.get("deviceID")),
        "cw_location": _text(metadata.get("location")),
        "cw_metadata": None if state.metadata is None else json_text(state.metadata),
        "cw_attachments": None if state.attachments is None else json_text(state.attachments),
        "cw_version": state.state_version,
        "cw_deleted": bool(state.archived),
    }
    # JSON always has attachments: this came as XML (protocol.md §6.1).
    kept = frozenset(FORMS.kept) if state.attachments is None else frozenset[str]()
    return Row(
        family=FORMS,
        domain=state.domain,
        id=state.id,
        group=state.xmlns,
        title=title or "",
        version=state.state_version,
        deleted=bool(state.archived),
        line=Line({name: cell for name, cell in own.items() if name not in kept}, {}, kept),
        answers=state.form,
    )


def filled(line: Line, held: Mapping[str, Cell]) -> Line:
    """Return the line with the columns that it keeps taken from the row that it replaces."""
    kept = {column: held.get(column) for column in line.kept}
    return msgspec.structs.replace(line, own={**line.own, **kept}, kept=frozenset())


def cells(line: Line, columns: Mapping[str, str]) -> Mapping[str, Cell]:
    """Return the line by column; a column that is missing is null, or kept.

    `columns` maps properties to their columns. Those without one are in `cw_overflow`, as JSON.
    """
    by_column = dict(line.own)
    overflow: dict[str, str] = {}
    for source, text in line.properties.items():
        column = columns.get(source)
        if column is None:
            overflow[source] = text
        else:
            by_column[column] = text
    if overflow:
        by_column["cw_overflow"] = json_text(overflow)
    return by_column


def by_column(
    lines: Sequence[Line], own: Iterable[str], columns: Mapping[str, str]
) -> Mapping[str, Sequence[Cell]]:
    """Return the cells of lines by column, as `cells` has them; what is null in all is left out.

    Line by line, that is: column by column each line would come anew from beyond the caches.
    """
    ours, sent = dict.fromkeys(own), dict.fromkeys(columns)
    filled_own = zip(*[{**ours, **line.own}.values() for line in lines], strict=True)
    found: dict[str, Sequence[Cell]] = dict(zip(ours, filled_own, strict=True))
    every = [{**sent, **line.properties} for line in lines]
    found.update(zip(columns.values(), zip(*map(dict.values, every), strict=False), strict=False))
    if any(len(each) > len(sent) for each in every):
        found["cw_overflow"] = [cells(line, columns).get("cw_overflow") for line in lines]
    return {
        column: each
        for column, each in found.items()
        if each[0] is not None or each.count(None) < len(each)
    }


def suspects(rows: Sequence[Row]) -> Sequence[int]:
    """Return the places of rows that a target is likely to refuse.

    That is so of a time that is none, and of a key that is too long.
    """
    if not _looks_bad(rows):
        return ()
    return [place for place, row in enumerate(rows) if _looks_bad([row])]


def _looks_bad(rows: Sequence[Row]) -> bool:
    try:
        for row in rows:
            own = row.line.own
            for name in _TIMES[row.family.state]:
                if (time := own.get(name)) is not None:
                    datetime.fromisoformat(str(time))
    except ValueError:
        return True
    return any(len(row.id) > _LONG_KEY for row in rows)


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
        "cw_indices": json_text(indices),
    }


def _index_sources(indices: Mapping[str, Index]) -> Iterator[str]:
    """Yield the identifier and parent's type of each index that a view can be made of."""
    for identifier, index in indices.items():
        source = f"{identifier}/{index['case_type']}"
        if "\0" not in source:
            yield source


def _text(value: Json) -> str | None:
    return value if value is None or isinstance(value, str) else json_text(value)


def json_text(value: Json) -> str:
    """Raise TypeError for what is not JSON, lone surrogates among it."""
    return orjson.dumps(value).decode()


def _clean_cases(states: Sequence[CaseState]) -> Iterator[Row]:
    """Return the rows of states if it is plain that every target takes all of them, else none.

    All texts are looked at together, which takes a fifth of the time that one by one would.
    """
    try:
        rows = [case_row(state) for state in states]
    except TypeError:
        return iter(())
    texts: list[str] = []
    names: set[str] = set()
    for row in rows:
        names.update(row.line.properties)
        texts.extend(row.line.properties.values())
        texts.extend(cell for cell in map(row.line.own.get, _SENT) if isinstance(cell, str))
    text = "".join((*names, *texts))
    clean = (
        all(map(_DOMAIN.fullmatch, {state.domain for state in states}))
        and _NUL_IN_JSON.decode() not in text
        and _is_takable(text, takes_nul=False)
    )
    return iter(rows if clean else ())


def _clean_case(state: CaseState, *, takes_nul: bool) -> Row | None:
    try:
        row = case_row(state)
    except TypeError:  # orjson's word for text that is not UTF-8
        return None
    properties = row.line.properties
    text = "".join((*properties, *properties.values(), *_case_texts(state).values()))
    clean = _DOMAIN.fullmatch(state.domain) and _is_takable(text, takes_nul=takes_nul)
    return row if clean else None


def _clean_form(state: FormState, *, takes_nul: bool) -> Row | None:
    try:
        row = form_row(state)
        text = orjson.dumps([state.form, *row.line.own.values()])
    except TypeError:
        return None
    if not _DOMAIN.fullmatch(state.domain):
        return None
    if not takes_nul and _NUL_IN_JSON in text and any("\0" in each for _, each in _texts(state)):
        return None
    return row


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


def _rejection(state: CaseState | FormState, *, takes_nul: bool) -> Rejection:
    if not _DOMAIN.fullmatch(state.domain):
        return Rejection("invalid_field", "this is no name of a project space", path="domain")
    for path, text in _texts(state):
        if not _is_takable(text, takes_nul=takes_nul):
            what = "a NUL character" if "\0" in text else "text that is not UTF-8"
            return Rejection("invalid_field", f"the database does not take {what}", path=path)
    return Rejection("invalid_field", "a value has no JSON text", path="")


def _texts(state: CaseState | FormState) -> Iterator[tuple[str, str]]:
    """Yield all text that becomes a column's name or a cell, with its path."""
    if isinstance(state, FormState):
        row = {name: getattr(state, name) for name in ("id", "app_id", "version", "build_id")}
        yield from ((path, text or "") for path, text in row.items())
        yield from _texts_within("metadata", state.metadata or {})
        yield from _texts_within("attachments", state.attachments or {})
        yield from _texts_within("form", state.form)
        return
    yield from _case_texts(state).items()
    yield from _texts_within("properties", state.properties)


def _case_texts(state: CaseState) -> Mapping[str, str]:
    indices = "".join(
        f"{identifier} {index['case_type']} {index['case_id']} {index['relationship']} "
        for identifier, index in (state.indices or {}).items()
    )
    return {"case_id": state.case_id, "user_id": state.user_id or "", "indices": indices}


def _texts_within(path: str, values: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    for name in values:
        yield path, name
    for name, value in values.items():
        yield f"{path}.{name}", value if isinstance(value, str) else _every_text(value)


def _every_text(value: Json) -> str:
    """Return a text that holds whatever characters the value holds at any depth."""
    if isinstance(value, Mapping):
        return "".join(map(_every_text, (*value, *value.values())))
    return "".join(map(_every_text, value)) if isinstance(value, list) else str(value)
