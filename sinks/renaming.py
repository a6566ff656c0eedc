"""Keys under the names that a subscriber knows them by (pure). Paths are those of redaction."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from schemas.errors import InvalidEventError
from schemas.fields import sent_name
from schemas.values import Json
from sinks.redaction import Path, parsed, path_problems, rests


class _Rule(NamedTuple):
    """What is left of a path inside an object; `old` is its last key, `new` the name for it."""

    path: Path
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Renaming:
    """New names of keys, by path."""

    rules: Sequence[_Rule]

    @classmethod
    def of(cls, names: Mapping[str, str]) -> Self:
        return cls([_Rule(parsed(text), parsed(text)[-1], new) for text, new in names.items()])

    def applied(self, value: Mapping[str, Json]) -> Mapping[str, Json]:
        """Return the value with its new names. What was given stays as it is.

        Raises InvalidEventError if two keys of one object would have the same name.
        """
        return _object(value, self.rules, "") if self.rules else value


def rename_problems(names: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with names that somebody wrote under `rename`."""
    yield from path_problems("rename", names)
    for text, new in names.items():
        if text.endswith("*"):
            yield f"rename: {text!r} names no key; end it with the key's own name"
        elif not new or "." in new:
            yield f"rename: {text!r} gets no name; write one without dots"


def _object(value: Mapping[str, Json], rules: Sequence[_Rule], place: str) -> dict[str, Json]:
    renamed: dict[str, Json] = {}
    for name, inner in value.items():
        deeper = [_Rule(rest, old, new) for path, old, new in rules for rest in rests(name, path)]
        names = [new if name == old else sent_name(new) for path, old, new in deeper if not path]
        new_name = names[-1] if names else name
        path = f"{place}{name}"
        if new_name in renamed:
            raise InvalidEventError("mapping_failed", "two keys would have one name", path=path)
        renamed[new_name] = _inside(inner, [rule for rule in deeper if rule.path], f"{path}.")
    return renamed


def _inside(value: Json, rules: Sequence[_Rule], place: str) -> Json:
    if rules and isinstance(value, list):
        return [_inside(item, rules, place) for item in value]
    if rules and isinstance(value, Mapping):
        return _object(value, rules, place)
    return value
