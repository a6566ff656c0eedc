"""What all topic values have in common: known fields, and unknown ones that pass through."""

from collections.abc import Callable
from dataclasses import Field
from typing import Any, ClassVar, Self, TypeAlias

import orjson

Json: TypeAlias = Any
"""A JSON value that is passed through as it came."""


class Value:
    """A frozen dataclass with a field `extra` for the keys that it does not name."""

    __slots__ = ()
    extra: dict[str, Json]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the known fields, in order."""
        return [name for name in cls.__dataclass_fields__ if name != "extra"]

    def to_json(self) -> bytes:
        value = {name: getattr(self, name) for name in self.names()}
        return orjson.dumps(value | self.extra)

    @classmethod
    def from_json(cls, value: bytes) -> Self:
        """Parse what `to_json` wrote. Raises ValueError or TypeError for anything else."""
        return cls.from_object(orjson.loads(value))

    @classmethod
    def from_object(cls, value: dict[str, Json]) -> Self:
        """Take known fields and `extra` from an object; a missing field is a TypeError."""
        if not isinstance(value, dict):
            raise TypeError("the value is not a JSON object")
        names = cls.names()
        known = {name: value[name] for name in names if name in value}
        extra = {name: item for name, item in value.items() if name not in known}
        make: Callable[..., Self] = cls
        return make(**known, extra=extra)
