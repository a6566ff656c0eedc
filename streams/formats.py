"""Which forms of the topics' values this Casewire can read.

A value's form is in its header `casewire-schema`, as a name and a version. A version grows only
when who knows the one before would misread it (schemas/publish.py).
"""

from typing import Final

from schemas.errors import WorkerError
from schemas.publish import PUBLISHED
from streams.batches.raw import HeaderBlock
from streams.records import Record, header

_HEADER: Final = "casewire-schema"
_KNOWN: Final = frozenset(name.encode() for name in PUBLISHED)
_VERSIONS: Final = {name.partition("/")[0]: int(name.partition("/")[2]) for name in PUBLISHED}
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


def _require_known(record: Record) -> None:
    form = header(record.headers, _HEADER) or ""
    name, _, version = form.partition("/")
    if name in _VERSIONS and version.isdecimal() and int(version) > _VERSIONS[name]:
        raise NewerFormError(
            f"{record.topic} has values of the form {form}, and this Casewire knows "
            f"{name}/{_VERSIONS[name]}: run the newer Casewire that wrote them; nothing is lost"
        )
