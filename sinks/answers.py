"""A form's answers as texts in tables: groups flattened, repeats apart (pure).

A list is a repeat. A single object looks like a group, and is a repeat too where its path is known
as one. Paths name elements from the form's root: `visits/drug`; places tell one of several, as in
XPath, and every element has a number, so that a place stays the same when a group turns out to be a
repeat: `visits[2]/drug[1]`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from schemas.values import Json

#: The text of an element that has attributes, and the only answer of a repeat without any inside.
TEXT: Final = "#text"

_CASE: Final = "case"
_CASE_ID: Final = "@case_id"

#: What a form's own columns hold already; `meta` is `metadata`, as HQ made it.
_OWN: Final = frozenset({"#type", "@name", "@xmlns", "@version", "@uiVersion", "meta", "Meta"})
_NAMESPACE: Final = "@xmlns"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one of a repeat is, and the repeat that it is in (empty: the form itself)."""

    path: str
    ordinal: int
    parent: str


@dataclass(frozen=True, slots=True)
class Found:
    """One of a repeat: `texts` is by path, relative to it."""

    place: Place
    texts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answers:
    """`texts`: what is not in any repeat, by path. `repeats`: by path, each in the form's order."""

    texts: dict[str, str]
    repeats: dict[str, list[Found]]


@dataclass(frozen=True, slots=True)
class _Here:
    """An element on the way: its path and place, those of the repeat it is in, and its texts."""

    path: str
    place: str
    parent: str
    relative: str
    texts: dict[str, str]

    def inner(self, name: str) -> "_Here":
        return _Here(
            path=_joined(self.path, name),
            place=_joined(self.place, name + "[1]"),
            parent=self.parent,
            relative=_joined(self.relative, name),
            texts=self.texts,
        )


def placed(form: Mapping[str, Json], repeats: Collection[str]) -> Answers:
    """Return what `form` says; `repeats` holds paths of repeats, beside those of its lists.

    Null is nothing; an element without any answers is an empty text, as HQ gives empty elements.
    Of a case block, in all forms that it can have, only the id is an answer (`case/@case_id`): what
    a form does to cases is in the tables of cases. Namespaces are left out.
    """
    answers = Answers({}, {})
    root = _Here("", "", "", "", answers.texts)
    known = frozenset(repeats)
    for name, value in form.items():
        if name not in _OWN:
            _place(root, name, value, known, answers)
    return answers


def enclosing(path: str, repeats: Collection[str]) -> str:
    """Return the innermost of the repeats that holds a path but is not it; empty if none does."""
    return max((each for each in repeats if path.startswith(each + "/")), key=len, default="")


def _place(
    within: _Here, name: str, value: Json, repeats: frozenset[str], answers: Answers
) -> None:
    if value is None or name == _NAMESPACE:
        return
    if name == TEXT:
        within.texts[within.relative or TEXT] = _text(value)
        return
    name = _escaped(name)
    if isinstance(value, str) and _joined(within.path, name) not in repeats:
        within.texts[_joined(within.relative, name)] = value
        return
    here = within.inner(name)
    if name == _CASE:
        value = [_case_id(each) for each in value] if isinstance(value, list) else _case_id(value)
    if isinstance(value, list) or here.path in repeats:
        _place_repeat(here, value if isinstance(value, list) else [value], repeats, answers)
    else:
        _place_element(here, value, repeats, answers)


def _place_repeat(
    here: _Here, items: list[Json], repeats: frozenset[str], answers: Answers
) -> None:
    found = answers.repeats.setdefault(here.path, [])
    for ordinal, item in enumerate(items, 1):
        place = f"{here.place[:-2]}{ordinal}]"
        one = Found(Place(place, ordinal, here.parent))
        found.append(one)
        inner = _Here(here.path, place, place, "", one.texts)
        if item is not None:
            _place_element(inner, item, repeats, answers)


def _place_element(here: _Here, value: Json, repeats: frozenset[str], answers: Answers) -> None:
    if not isinstance(value, dict):
        here.texts[here.relative or TEXT] = _text(value)
        return
    before = _size(here, answers)
    for name, inner in value.items():
        _place(here, name, inner, repeats, answers)
    if _size(here, answers) == before:
        here.texts[here.relative or TEXT] = ""


def _size(here: _Here, answers: Answers) -> int:
    return len(here.texts) + sum(map(len, answers.repeats.values()))


def _case_id(value: Json) -> Json:
    if not isinstance(value, dict):
        return value
    case_id = value.get(_CASE_ID) or value.get("case_id")
    return value if case_id is None else {_CASE_ID: case_id}


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _escaped(name: str) -> str:
    """Return a name that no path can be taken for; only JSON of somebody else needs it."""
    if "/" in name or "~" in name or not name:
        return name.replace("~", "~0").replace("/", "~1") or "~"
    return name


def _text(value: Json) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
