"""What a subscriber is not to see: properties and answers left out, or hashed with a key (pure).

A path names keys from the outside in, joined by dots: `properties.phone`, `form.visit.name`. `*`
stands for any one key, `**` for any number of them: `**.phone` is every `phone`. Lists are gone
through item by item. What was sent beside a key (`timeEnd_sent` beside `timeEnd`) goes with it.
"""

import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

import orjson

from schemas.fields import sent_name
from schemas.values import Json

Path: TypeAlias = tuple[str, ...]

_DEEP: Final = "**"
_SORTED: Final = orjson.OPT_SORT_KEYS
#: They are in the record's key too, which says whose it is.
_IN_THE_KEY: Final = frozenset({"domain", "case_id", "id"})


@dataclass(frozen=True, slots=True)
class Redaction:
    """`key` is that of the hash (HMAC-SHA256)."""

    dropped: Sequence[Path]
    hashed: Sequence[Path]
    key: bytes

    @classmethod
    def of(cls, drop: Sequence[str], hashed: Sequence[str], key: str) -> Self:
        return cls([parsed(text) for text in drop], [parsed(text) for text in hashed], key.encode())

    def applied(self, value: Mapping[str, Json]) -> Mapping[str, Json]:
        """Return the value without what is to be hidden. What was given stays as it is."""
        if not self.dropped and not self.hashed:
            return value
        return self._object(value, self.dropped, self.hashed)

    def leaves(self, name: str) -> bool:
        """Whether a key of the value is left as it is."""
        return bool(self.applied({name: name}) == {name: name})

    def _object(
        self, value: Mapping[str, Json], dropped: Sequence[Path], hashed: Sequence[Path]
    ) -> dict[str, Json]:
        left: dict[str, Json] = {}
        for name, inner in value.items():
            deeper = _under(name, dropped)
            if () not in deeper:
                left[name] = self._inside(inner, deeper, _under(name, hashed))
        return left

    def _inside(self, value: Json, dropped: Sequence[Path], hashed: Sequence[Path]) -> Json:
        if () in hashed:
            return self._hash(value)
        if isinstance(value, list):
            return [self._inside(item, dropped, hashed) for item in value]
        if isinstance(value, Mapping) and (dropped or hashed):
            return self._object(value, dropped, hashed)
        return value

    def _hash(self, value: Json) -> Json:
        """Return 64 hexadecimal digits that are the same for the same value; nothing stays so."""
        if value is None or value == "":
            return value
        text = value.encode() if isinstance(value, str) else orjson.dumps(value, option=_SORTED)
        return hmac.digest(self.key, text, "sha256").hex()


def parsed(text: str) -> Path:
    return tuple(text.split("."))


def path_problems(key: str, texts: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with paths that somebody wrote under `key`."""
    for text in texts:
        path = parsed(text)
        if "" in path or path[-1] == _DEEP:
            yield f"{key}: {text!r} is no path; write keys joined by dots, as properties.phone"
        elif path[0] in _IN_THE_KEY:
            yield f"{key}: {path[0]} stays as it is, it is in the record's key; remove it"


def _under(name: str, paths: Sequence[Path]) -> Sequence[Path]:
    """Return what is left of the paths inside a key; an empty one means the key itself."""
    return [rest for path in paths for rest in rests(name, path)]


def rests(name: str, path: Path) -> Iterator[Path]:
    """Yield what is left of a path inside a key; nothing if it leads elsewhere."""
    if not path:
        return
    head, rest = path[0], path[1:]
    if head == _DEEP:
        yield path
        yield from rests(name, rest)
    elif head in ("*", name) or name == sent_name(head):
        yield rest
