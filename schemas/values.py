"""What all topic values have in common: known fields, and unknown ones that pass through."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Self, TypeAlias

import msgspec
import orjson

Json: TypeAlias = Any
"""A JSON value that is passed through as it came."""


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable value; `extra` holds the keys that it does not name.

    A struct, since values are made for each event: a frozen dataclass takes five times as long.
    """

    extra: dict[str, Json] = msgspec.field(default_factory=dict)

    @classmethod
    def names(cls) -> Sequence[str]:
        """Return the names of the known fields, in order."""
        return [name for name in cls.__struct_fields__ if name != "extra"]

    def to_json(self) -> bytes:
        value = msgspec.structs.asdict(self)
        extra = value.pop("extra")
        return orjson.dumps(value | extra if extra else value)

    @classmethod
    def from_json(cls, value: bytes) -> Self:
        """Parse what `to_json` wrote. Raises ValueError or TypeError for anything else."""
        return cls.from_object(orjson.loads(value))

    @classmethod
    def from_object(cls, value: dict[str, Json]) -> Self:
        """Take known fields and `extra` from an object; a missing field is a TypeError."""
        if not isinstance(value, dict):
            raise TypeError("the value is not a JSON object")
        make: Callable[..., Self] = cls
        names = _names(cls)
        if value.keys() <= names:
            return make(**value)
        known = {name: item for name, item in value.items() if name in names}
        extra = {name: item for name, item in value.items() if name not in names}
        return make(**known, extra=extra)


@cache
def _names(kind: type[Value]) -> frozenset[str]:
    return frozenset(kind.names())
