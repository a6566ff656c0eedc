"""The published JSON Schemas: as the classes are, true of every event, compatible over releases."""

from copy import deepcopy
from pathlib import Path
from typing import Final

import orjson
import pytest
from jsonschema import Draft202012Validator

from schemas.case import CaseEvent, CaseState
from schemas.dead_letter import DeadLetter, Original
from schemas.parse import destination, parse
from schemas.publish import FOLDER, PUBLISHED, document, file_name, incompatibilities, main, schema
from schemas.values import Json
from tests.schemas.captures import fixture
from tests.schemas.test_fixtures import EVENTS

#: A copy of schemas/published/ as it was at the last release.
RELEASED: Final = Path(__file__).parents[1] / "fixtures" / "released_schemas"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_file_is_what_the_class_says(name: str) -> None:
    published = (FOLDER / file_name(name)).read_bytes()
    assert published == document(name), "run `python -m schemas.publish` and commit what it writes"


def test_nothing_else_is_published() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {file_name(name) for name in PUBLISHED}


def test_publishing_again_changes_nothing() -> None:
    before = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    main()
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == before


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_schema_is_valid_and_lets_unknown_keys_pass(name: str) -> None:
    made = schema(name)
    Draft202012Validator.check_schema(made)
    assert "extra" not in made["properties"]
    assert made.get("additionalProperties", True) is True


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_of_the_samples_is_as_published(name: str) -> None:
    event = parse(fixture(name))
    validator = Draft202012Validator(schema(destination(event).schema))
    assert not list(validator.iter_errors(orjson.loads(event.to_json())))


def test_a_state_and_a_dead_letter_are_as_published() -> None:
    event = parse(fixture("case_json_current_open.json"))
    assert isinstance(event, CaseEvent)
    state = CaseState(
        **{name: getattr(event, name) for name in CaseEvent.names()},
        source="snapshot",
        version=1,
        captured_id="e1",
        deleted=False,
        doubtful=False,
    )
    letter = DeadLetter(
        captured_id="e1",
        domain="demo",
        stage="decode",
        cause="missing_id",
        retryable=False,
        explanation="the id is missing",
        path="case_id",
        attempts=1,
        failed_at="2026-11-22T10:00:00.000000Z",
        target_error="",
        original=Original(
            topic="casewire.captured",
            partition=0,
            offset=1,
            key=None,
            value=None,
            value_bytes=0,
            headers=[("ce_id", "ZTE=")],
        ),
    )
    for name, value in (("case-state/1", state), ("dead-letter/1", letter)):
        Draft202012Validator(schema(name)).validate(orjson.loads(value.to_json()))


def test_what_was_released_can_still_be_read() -> None:
    for path in RELEASED.glob("*.json"):
        old = orjson.loads(path.read_bytes())
        new = orjson.loads((FOLDER / path.name).read_bytes())
        assert old["$id"] != new["$id"] or incompatibilities(old, new) == []


def changed(*path: str | int, to: Json = None) -> dict[str, Json]:
    """Return the dead letter's schema with one part replaced, or removed if `to` is None."""
    made = deepcopy(schema("dead-letter/1"))
    part: Json = made
    for name in path[:-1]:
        part = part[name]
    if to is None:
        del part[path[-1]]
    else:
        part[path[-1]] = to
    return made


LETTER: Final = schema("dead-letter/1")
STRING: Final = {"type": "string"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (LETTER, LETTER),
        (LETTER, changed("description", to="other words")),
        (LETTER, changed("properties", "added", to=STRING)),
        (LETTER, changed("required", 0)),
        (LETTER, changed("properties", "path", to={"anyOf": [STRING, {"type": "null"}]})),
        (LETTER, changed("properties", "path", to={})),
        (changed("properties", "cause", "enum", 0), LETTER),
        (LETTER, changed("properties", "cause", to=STRING)),
        (changed("$defs", "Original", "required", 0), changed("$defs", "Original", "required", 0)),
    ],
)
def test_additions_are_compatible(old: dict[str, Json], new: dict[str, Json]) -> None:
    assert incompatibilities(old, new) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (LETTER, changed("properties", "path"), "$.path is removed"),
        (changed("required", 0), LETTER, "$.captured_id is newly required"),
        (
            LETTER,
            changed("properties", "path", to={"type": "integer"}),
            "$.path may no longer be string",
        ),
        (
            changed("properties", "path", to={"anyOf": [STRING, {"type": "null"}]}),
            LETTER,
            "$.path may no longer be null",
        ),
        (changed("properties", "path", to={}), LETTER, "$.path may no longer be anything"),
        (
            LETTER,
            changed("properties", "cause", "enum", 0),
            "$.cause has lost values of its enumeration",
        ),
        (
            changed("properties", "cause", to=STRING),
            LETTER,
            "$.cause has lost values of its enumeration",
        ),
        (
            changed("$defs", "Original", "required", 0),
            LETTER,
            "$.original.headers is newly required",
        ),
        (
            schema("case/1"),
            deepcopy(schema("case/1")) | {"$defs": {"Index": {"type": "object", "properties": {}}}},
            "$.indices[].case_type is removed",
        ),
        (
            schema("form-stub/1"),
            {
                **schema("form-stub/1"),
                "properties": schema("form-stub/1")["properties"]
                | {"case_ids": {"type": "array", "items": {"type": "integer"}}},
            },
            "$.case_ids[] may no longer be string",
        ),
    ],
)
def test_what_readers_could_stumble_over_is_found(
    old: dict[str, Json], new: dict[str, Json], complaint: str
) -> None:
    assert complaint in incompatibilities(old, new)
