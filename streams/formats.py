"""Which forms of the topics' values this Casewire can read.

A value's form is in its header `casewire-schema`, as a name and a version. A version grows only
when who knows the one before would misread it (schemas/publish.py).
"""

from collections.abc import Sequence
from typing import Final

from schemas.errors import WorkerError
from schemas.publish import PUBLISHED
from streams.batches.raw import HeaderBlock
from streams.fold import FORM as FOLD
from streams.records import Record, header

_HEADER: Final = "casewire-schema"
_FORMS: Final = (*PUBLISHED, FOLD)
_KNOWN: Final = frozenset(form.encode() for form in _FORMS)
_VERSIONS: Final = {form.partition("/")[0]: int(form.partition("/")[2]) for form in _FORMS}
#: Where our own writers put the header: in events, and in states.
_IN_EVENTS: Final = 5
_IN_STATES: Final = 6


class NewerFormError(WorkerError):
    """A newer Casewire has written what this one would misread."""


def require_readable(record: Record) -> None:
    """Raise NewerFormError for a record of a newer form; what is none of ours is for others."""
    headers = record.headers
    if isinstance(headers, HeaderBlock):
        # Who puts a header into an id of his own spares nothing but that record the question.
        if headers.likely(_HEADER) in _KNOWN:
            return
    elif len(headers) > _IN_STATES:
        name, form = headers[_IN_EVENTS]
        if name != _HEADER:
            name, form = headers[_IN_STATES]
        if name == _HEADER and form in _KNOWN:
            return
    _require_known(record)


def require_all_readable(records: Sequence[Record]) -> None:
    """Raise NewerFormError if one of a changelog's records is of a newer form.

    They are of one form, so it is looked for as it is written in their headers, at a twentieth of
    what it costs to find out which form each one is of.
    """
    usual = b""
    for record in records:
        headers = record.headers
        if usual and isinstance(headers, HeaderBlock) and usual in headers.body:
            continue
        require_readable(record)
        usual = _as_written(record)


def _as_written(record: Record) -> bytes:
    """Return the header of a short form as records have it; nothing if there is none."""
    form = (header(record.headers, _HEADER) or "").encode()
    if form not in _KNOWN:
        return b""
    return b"".join(bytes([2 * len(text)]) + text for text in (_HEADER.encode(), form))


def _require_known(record: Record) -> None:
    form = header(record.headers, _HEADER) or ""
    name, _, version = form.partition("/")
    if name in _VERSIONS and version.isdecimal() and int(version) > _VERSIONS[name]:
        raise NewerFormError(
            f"{record.topic} has values of the form {form}, and this Casewire knows "
            f"{name}/{_VERSIONS[name]}: run the newer Casewire that wrote them; nothing is lost"
        )
