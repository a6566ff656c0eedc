"""Taking fields out of what was sent: what is relied on must be right, all else passes through.

A field that the pipeline relies on (ids, times that order versions, the containers) and that is
not what it must be makes the body a dead letter. Any other known field of an unexpected type is
null, and what was sent stands beside it as `<key>_sent`. An empty string is no time and no id.
"""

from collections.abc import Collection, Mapping
from typing import TypeVar

from schemas.envelope import Captured
from schemas.errors import InvalidEventError
from schemas.times import canonical
from schemas.values import Json

T = TypeVar("T")


def sent_name(name: str) -> str:
    """Return the key beside `name` for what was sent in a way that the field cannot hold."""
    return f"{name}_sent"


def passed_through(
    sent: Mapping[str, Json], known: Collection[str], reserved: Collection[str], domain: str
) -> dict[str, Json]:
    """Return the keys that are not `known`, for an event's `extra`.

    Those that mean something else in Casewire (`reserved`: what a state adds) are renamed, and so
    is a domain other than that of the address, which alone counts.
    """
    extra = {
        sent_name(name) if name in reserved else name: value
        for name, value in sent.items()
        if name not in known
    }
    sent_domain = sent.get("domain", domain)
    if sent_domain not in (domain, None):
        extra[sent_name("domain")] = sent_domain
    return extra


def identifier(value: Json, path: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise InvalidEventError("missing_id", "the id is missing or blank", path=path)
    if not isinstance(value, str):
        raise InvalidEventError("invalid_field", "the id is not a string", path=path)
    return value


def of_type(kind: type[T], name: str, sent: Mapping[str, Json], extra: dict[str, Json]) -> T | None:
    """Return a field that nothing relies on, None if it is not of that type."""
    value = sent.get(name)
    if isinstance(value, kind):
        return value
    if value is not None:
        extra[sent_name(name)] = value
    return None


def mapping(name: str, sent: Mapping[str, Json]) -> dict[str, Json]:
    value = sent.get(name)
    if not isinstance(value, dict):
        raise InvalidEventError("invalid_field", "the field is not an object", path=name)
    return value


def texts(value: Json, path: str) -> list[str]:
    if not isinstance(value, list):
        raise InvalidEventError("invalid_field", "the field is not a list", path=path)
    for number, item in enumerate(value):
        if not isinstance(item, str):
            raise InvalidEventError(
                "invalid_field", "the item is not a string", path=f"{path}[{number}]"
            )
    return value


def time_or_null(name: str, sent: Mapping[str, Json], beside: dict[str, Json]) -> str | None:
    """Return a time that nothing relies on in canonical form, None if it says no time.

    One that was not sent in canonical form is put into `beside`.
    """
    value = sent.get(name)
    if value is None or value == "":
        return None
    time = canonical(value) if isinstance(value, str) else None
    if time != value:
        beside[sent_name(name)] = value
    return time


def ordering_time(
    name: str, sent: Mapping[str, Json], beside: dict[str, Json], captured: Captured, header: str
) -> str | None:
    """Return a time that decides which version is newer, in canonical form.

    Taken from the header if the body lacks it; None if neither has it (`header` empty: there is
    none for it). One that says no time is an InvalidEventError.
    """
    value, path = sent.get(name), name
    if header and (value is None or value == ""):
        value, path = captured.header(header), f"headers.{header}"
    if value is None or value == "":
        return None
    time = canonical(value) if isinstance(value, str) else None
    if time is None:
        raise InvalidEventError("invalid_field", "the field says no time", path=path)
    if time != value:
        beside[sent_name(name)] = value
    return time
