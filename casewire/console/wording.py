"""How figures and times are written on pages, and what of values is shown."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

import orjson

from schemas.values import Json

#: Properties that say nothing of a person.
PLAIN: Final = frozenset({"case_type", "owner_id"})
#: Reveals all.
EVERYTHING: Final = "*"

#: An en dash, where there is no figure.
NOTHING: Final = "\N{EN DASH}"
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))


@dataclass(frozen=True, slots=True)
class Shown:
    """A name, and its value as text; None while it is hidden."""

    name: str
    value: str | None


def properties(values: Mapping[str, Json], revealed: Collection[str] = ()) -> Iterator[Shown]:
    """Yield a case's properties; of people only those that are revealed."""
    for name, value in values.items():
        plain = name in PLAIN or name in revealed or EVERYTHING in revealed
        yield Shown(name, text(value) if plain else None)


def text(value: Json) -> str:
    """Return a value as a person reads it."""
    if value is None:
        return "(none)"
    return value if isinstance(value, str) and value else orjson.dumps(value).decode()


def capital(sentence: str) -> str:
    """Return a sentence with its first letter large; the rest stays as it is."""
    return sentence[:1].upper() + sentence[1:]


def count(number: int) -> str:
    return f"{number:,}"


def rate(per_second: float | None) -> str:
    if per_second is None:
        return NOTHING
    return f"{per_second:,.1f}/s" if 0 < per_second < 10 else f"{per_second:,.0f}/s"


def span(seconds: float) -> str:
    """Return a span of time in its largest unit."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 or not seconds else f"{seconds:.1f} s"


def moment(time: str | None) -> str:
    """Return a canonical time to the second; all times on pages are UTC."""
    return time[:19].replace("T", " ") if time else NOTHING


def path(part: str) -> str:
    """Return text as one part of a path. Slashes of ids are kept as such: see the routes."""
    return quote(part, safe="/:")


def letters_link(**only: str) -> str:
    """Return the address of the dead letters, or only those of a `domain`, `stage` or `cause`."""
    chosen = {name: value for name, value in only.items() if value}
    return f"/dead-letters?{urlencode(chosen)}" if chosen else "/dead-letters"


def _assets() -> str:
    folder = Path(__file__).parent / "static"
    content = b"".join(file.read_bytes() for file in sorted(folder.iterdir()))
    return hashlib.sha256(content).hexdigest()[:12]


#: Names the static files' content, so that a browser may keep them.
ASSETS: Final = _assets()
