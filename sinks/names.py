"""Names of tables and columns: the sender's own wherever a database can take them.

Names are case-insensitively distinct, also in PostgreSQL, so that a project has the same names in
every database. Which name was given to what is kept in the table `cw_names`.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

#: Bytes. PostgreSQL cuts longer names silently.
NAME_LIMIT: Final = 63
OWN_PREFIX: Final = "cw_"

#: Columns that every PostgreSQL table has already, under names that cannot be given again.
_SYSTEM_COLUMNS: Final = frozenset({"tableoid", "ctid", "xmin", "cmin", "xmax", "cmax"})
_DIGEST_CHARACTERS: Final = 8

#: What makes the name of a form awkward to write in SQL.
_UNSPEAKABLE: Final = re.compile(r"\W+")


def shortened(name: str) -> str:
    """Return the name if it has at most 63 bytes, else its beginning and a digest of it all."""
    return name if len(name.encode()) <= NAME_LIMIT else _with_digest(name, name)


def table_name(case_type: str) -> str:
    """Return the wanted name of a case type's table; cases without a type have one too."""
    return _safe(f"case_{case_type or 'without_type'}")


def form_table_name(xmlns: str, title: str) -> str:
    """Return the wanted name of a form's table: what people call it, and a digest of its xmlns."""
    if not xmlns:
        return "form_without_xmlns"
    name = _UNSPEAKABLE.sub("_", title.casefold()).strip("_")
    return _with_digest(f"form_{name}" if name else "form", xmlns)


def repeat_table_name(form_table: str, path: str) -> str:
    """Return the wanted name of the table of a form's repeat."""
    return _safe(f"{form_table}__{path.replace('/', '__')}")


def index_view_name(case_type: str, source: str) -> str:
    """Return the wanted name of the view of an index, as `child_of_household`.

    `source` is the index's identifier and the parent's type: `parent/household`.
    """
    identifier, _, parent_type = source.partition("/")
    name = f"{case_type or 'without_type'}_of_{parent_type or 'without_type'}"
    return _safe(name if identifier == "parent" else f"{name}_as_{identifier}")


def answer_name(path: str) -> str:
    """Return the wanted name of an answer's column: `weight/@unit` is `weight__unit`."""
    return column_name(path.replace("/", "__").replace("@", "").replace("#", ""))


def column_name(source: str) -> str:
    """Return the wanted name of a property's column: never empty, never one of the others'."""
    folded = source.casefold()
    if not source or folded.startswith(OWN_PREFIX) or folded in _SYSTEM_COLUMNS:
        return _safe(f"p_{source}")
    return _safe(source)


def assigned(wanted: Mapping[str, str], taken: Iterable[str]) -> Mapping[str, str]:
    """Give each source the name that it wants, or one with a digest if that is taken.

    `wanted` maps sources to names. Among new sources the lower-case one goes first, so that of
    `Foo` and `foo` in one batch it is always `foo` that keeps its name.
    """
    used = {name.casefold() for name in taken}
    names: dict[str, str] = {}
    for source in sorted(wanted, key=lambda source: (source != source.lower(), source)):
        name, salt = wanted[source], source
        while name.casefold() in used:
            name = _with_digest(wanted[source], salt)
            salt += "+"
        used.add(name.casefold())
        names[source] = name
    return names


def quoted(name: str) -> str:
    """Return the name as SQL text."""
    return '"' + name.replace('"', '""') + '"'


def _safe(name: str) -> str:
    if "\0" in name:
        return _with_digest(name.replace("\0", "_"), name)
    return shortened(name)


def _with_digest(name: str, source: str) -> str:
    digest = hashlib.sha256(source.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    room = NAME_LIMIT - _DIGEST_CHARACTERS - 1
    return f"{name.encode()[:room].decode(errors='ignore')}_{digest}"
