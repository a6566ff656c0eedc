"""Which forms of the topics' values this Casewire can read.

A value's form is in its header `casewire-schema`, as a name and a version. A version grows only
when who knows the one before would misread it (schemas/publish.py).
"""

from typing import Final

from schemas.envelope import Headers
from schemas.errors import WorkerError
from schemas.publish import PUBLISHED
from streams.records import Record

_HEADER: Final = "casewire-schema"
_KNOWN: Final = frozenset(name.encode() for name in PUBLISHED)
_VERSIONS: Final = {name.partition("/")[0]: int(name.partition("/")[2]) for name in PUBLISHED}
#: Where our own writers put the header: in events, and in states.
_PLACES: Final = (5, 6)


class NewerFormError(WorkerError):
    """A newer Casewire has written what this one would misread."""


def require_readable(record: Record) -> None:
    """Raise NewerFormError for a record of a newer form; what is none of ours is for others."""
    form = _form(record.headers)
    if form is None or form in _KNOWN:
        return
    name, _, version = form.decode("latin-1").partition("/")
    if name in _VERSIONS and version.isdecimal() and int(version) > _VERSIONS[name]:
        raise NewerFormError(
            f"{record.topic} has values of the form {name}/{version}, and this Casewire knows "
            f"{name}/{_VERSIONS[name]}: run the newer Casewire that wrote them; nothing is lost"
        )


def _form(headers: Headers) -> bytes | None:
    for place in _PLACES:
        if len(headers) > place and headers[place][0] == _HEADER:
            return headers[place][1]
    return next((value for name, value in headers if name == _HEADER), None)
