"""JSON Schemas of what is on the topics, for subscribers: `python -m schemas.publish` writes them.

They are made from the types that the code uses. A version grows when a change is not backward
compatible (`incompatibilities`); tests compare the files with the types, and with the last release.
"""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
import orjson

from schemas.alert import Alert
from schemas.case import CaseEvent, CaseState
from schemas.case_change import CaseChange
from schemas.dead_letter import DeadLetter
from schemas.delivery import BatchDelivery, EventDelivery
from schemas.form import FormEvent, FormState, FormStub
from schemas.others import (
    AppChange,
    CustomEvent,
    LocationEvent,
    LocationState,
    UserEvent,
    UserState,
)
from schemas.values import Json, Value

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
FOLDER: Final = Path(__file__).parent / "published"

_ANYTHING: Final = "anything"

#: By the name that the header `casewire-schema` gives: `case/1`.
PUBLISHED: Final[Mapping[str, type[Value]]] = {
    "case/1": CaseEvent,
    "case-change/1": CaseChange,
    "case-state/1": CaseState,
    "form/1": FormEvent,
    "form-state/1": FormState,
    "form-stub/1": FormStub,
    "app-change/1": AppChange,
    "user/1": UserEvent,
    "user-state/1": UserState,
    "location/1": LocationEvent,
    "location-state/1": LocationState,
    "custom/1": CustomEvent,
    "dead-letter/1": DeadLetter,
    "alert/1": Alert,
    "batch-delivery/1": BatchDelivery,
    "event-delivery/1": EventDelivery,
}


def file_name(name: str) -> str:
    """Return the published file's name: `case.json` for `case/1`."""
    return name.partition("/")[0] + ".json"


def schema(name: str) -> dict[str, Json]:
    """Return the JSON Schema of one of `PUBLISHED`. Keys that it does not name are allowed."""
    made = msgspec.json.schema(PUBLISHED[name])
    root: dict[str, Json] = made["$defs"].pop(PUBLISHED[name].__name__)
    root["properties"].pop("extra")
    for part in (root, *made["$defs"].values()):
        if "description" in part:
            part["description"] = inspect.cleandoc(part["description"])
    definitions = {"$defs": made["$defs"]} if made["$defs"] else {}
    return (
        {"$schema": DIALECT, "$id": f"urn:casewire:{name.replace('/', ':')}"} | root | definitions
    )


def document(name: str) -> bytes:
    """Return the published file."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(schema(name), option=options)


def incompatibilities(old: dict[str, Json], new: dict[str, Json]) -> list[str]:
    """Return why values that `old` describes may not be what `new` describes.

    Compatible is what is added: fields that may be missing, values of an enumeration, types. Not
    so is a field that is removed or newly required, or a type that has become narrower.
    """
    return list(_narrowed(_inlined(old, old), _inlined(new, new), "$"))


def _inlined(part: Json, root: dict[str, Json]) -> Json:
    """Return a part of a schema with each reference replaced by what it refers to."""
    if isinstance(part, list):
        return [_inlined(item, root) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inlined(root["$defs"][part["$ref"].removeprefix("#/$defs/")], root)
    return {name: _inlined(item, root) for name, item in part.items() if name != "$defs"}


def _narrowed(old: dict[str, Json], new: dict[str, Json], path: str) -> Iterator[str]:
    if _kind(new) == _ANYTHING:
        return
    for alternative in old.get("anyOf", [old]):
        kind = _kind(alternative)
        found = [
            list(_narrowed_alternative(alternative, candidate, path))
            for candidate in new.get("anyOf", [new])
            if _kind(candidate) == kind
        ]
        yield from min(found, key=len) if found else [f"{path} may no longer be {kind}"]


def _kind(part: dict[str, Json]) -> str:
    kind: str = part.get("type", "string" if "enum" in part else _ANYTHING)
    return "alternatives" if "anyOf" in part else kind


def _narrowed_alternative(old: dict[str, Json], new: dict[str, Json], path: str) -> Iterator[str]:
    if "enum" in new and not set(old.get("enum", [None])) <= set(new["enum"]):
        yield f"{path} has lost values of its enumeration"
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        yield f"{path}.{name} is newly required"
    properties = new.get("properties", {})
    for name, part in old.get("properties", {}).items():
        if name in properties:
            yield from _narrowed(part, properties[name], f"{path}.{name}")
        else:
            yield f"{path}.{name} is removed"
    for inner in ("items", "additionalProperties"):
        if isinstance(new.get(inner), dict):
            yield from _narrowed(old.get(inner) or {}, new[inner], f"{path}[]")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in PUBLISHED:
        (FOLDER / file_name(name)).write_bytes(document(name))


if __name__ == "__main__":
    main()
