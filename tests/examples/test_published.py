"""schemas/asyncapi.yaml and docs/topics.md: up to date, valid, and true of what is written."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import orjson
import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from schemas import parse
from schemas.asyncapi import HEADERS, INTERNAL, MESSAGES, Message, document, reserved
from schemas.topics import TOPICS
from schemas.values import Json
from streams.decode import CASE_CHANGES
from streams.records import header
from streams.republish import state_headers
from tests.examples.conftest import Cluster
from tests.examples.published import ASYNCAPI, DOC, asyncapi_yaml, filled
from tests.examples.samples import samples
from tests.kafka_tools import ConsumerRecord, read_all

pytestmark = pytest.mark.anyio

OFFICIAL: Final = Path(__file__).parents[1] / "fixtures" / "asyncapi" / "3.0.0.json"
REMEDY: Final = "run `make schemas` and commit what it writes"
URI: Final = "urn:asyncapi"


@cache
def published() -> dict[str, Json]:
    made: dict[str, Json] = yaml.safe_load(ASYNCAPI.read_text(encoding="utf-8"))
    return made


@cache
def validator(message: str, part: str) -> Draft202012Validator:
    """Return the validator of a message's `headers` or `payload`, as a subscriber would find it."""
    described = published()["components"]["messages"][message]
    document = Resource.from_contents(published(), default_specification=DRAFT202012)
    registry: Registry[Json] = Registry().with_resource(URI, document)
    if part == "headers":
        schema = {"$ref": f"{URI}#/components/messages/{message}/headers"}
        return Draft202012Validator(schema, registry=registry)
    path = ASYNCAPI.parent / described["payload"]["schema"]["$ref"]
    return Draft202012Validator(orjson.loads(path.read_bytes()))


def references(part: Json) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for item in part.values():
            yield from references(item)
    elif isinstance(part, list):
        for item in part:
            yield from references(item)


def test_the_files_are_what_is_made() -> None:
    made = samples()
    assert ASYNCAPI.read_text(encoding="utf-8") == asyncapi_yaml(made), REMEDY
    doc = DOC.read_text(encoding="utf-8")
    assert doc == filled(doc, made), REMEDY
    assert published() == document(made)


def test_the_document_is_valid_asyncapi() -> None:
    official = Draft7Validator(orjson.loads(OFFICIAL.read_bytes()))
    assert [error.message for error in official.iter_errors(published())] == []
    official.validate(published())
    broken = published() | {"operations": {"send-cases": {"action": "publish"}}}
    assert not official.is_valid(broken)


def test_every_reference_leads_somewhere() -> None:
    found = set(references(published()))
    assert found
    for reference in found:
        if reference.startswith("#/"):
            part = published()
            for name in reference[2:].split("/"):
                part = part[name]
        else:
            assert (ASYNCAPI.parent / reference).is_file(), reference


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_has_examples_that_are_as_described(name: str) -> None:
    examples = published()["components"]["messages"][name]["examples"]
    assert examples
    for example in examples:
        assert list(validator(name, "headers").iter_errors(example["headers"])) == []
        if MESSAGES[name].schema:
            assert list(validator(name, "payload").iter_errors(example["payload"])) == []


def test_every_kind_that_is_parsed_is_a_message() -> None:
    destinations = {*parse.DESTINATIONS.values(), parse._REFERRED, parse._DATA_SOURCE, CASE_CHANGES}
    described = {(message.topic, message.ce_type, message.schema) for message in MESSAGES.values()}
    assert {(to.topic, to.ce_type, to.schema) for to in destinations} <= described


def test_the_doc_names_every_topic_and_header() -> None:
    doc = DOC.read_text(encoding="utf-8")
    assert [name for name in TOPICS if f"`casewire.{name}`" not in doc] == []
    assert [header.name for header in HEADERS if f"`{header.name}`" not in doc] == []


@pytest.mark.parametrize("name", ["case-state", "form-state", "user-state", "location-state"])
def test_a_state_that_is_published_again_is_as_described(name: str) -> None:
    state = next(sample for sample in samples() if sample.message == name)
    assert state.value is not None
    again = state_headers(name.removesuffix("-state"), "w")(state.key, state.value)
    sent = {key: text.decode() for key, text in again}
    assert list(validator(name, "headers").iter_errors(sent)) == []
    assert header(again, "ce_id") == header(state.headers, "ce_id")
    assert header(again, "casewire-version") == header(state.headers, "casewire-version")


@pytest.mark.kafka
async def test_what_the_worker_writes_is_as_described(cluster: Cluster) -> None:
    """Every record of every topic, and every kind of message of a worker that gets on."""
    seen = set()
    for topic in TOPICS:
        records = await read_all(cluster.kafka.bootstrap_servers, cluster.kafka.topic(topic))
        assert not records or topic not in reserved(), f"{topic} is written, and not in MESSAGES"
        for record in [] if topic in INTERNAL else records:
            message = message_of(topic, record)
            seen.add(message.name)
            check(message, record)
    assert seen == set(MESSAGES) - {"alert"}


def message_of(topic: str, record: ConsumerRecord) -> Message:
    said = (
        header(record.headers, "ce_type") or "",
        header(record.headers, "casewire-schema") or "",
    )
    [found] = [
        message
        for message in MESSAGES.values()
        if message.topic == topic and (message.ce_type, message.schema) == said
    ]
    return found


def check(message: Message, record: ConsumerRecord) -> None:
    sent = {name: text.decode("latin-1") for name, text in record.headers}
    ours = {name for name in sent if name.startswith(("ce_", "casewire-"))}
    assert ours <= {header.name for header in HEADERS}
    family = {
        header.name for header in HEADERS if message.family in (*header.always, *header.sometimes)
    }
    assert ours <= family
    assert list(validator(message.name, "headers").iter_errors(sent)) == []
    if message.schema and not (record.value is None and message.topic.endswith("-state")):
        value = orjson.loads(record.value or b"null")
        assert list(validator(message.name, "payload").iter_errors(value)) == []
