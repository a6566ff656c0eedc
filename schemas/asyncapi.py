"""What is on the topics, as an AsyncAPI 3.0 document for subscribers: `make schemas` writes it.

It is made from the table of topics, the published JSON Schemas, the two tables below, and sample
records that the product's own functions make of HQ's sample bodies (tests/examples/samples.py).
A topic without a message here is Casewire's own (`INTERNAL`), or one that nothing writes to yet:
both are left out, since a channel is an offer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import orjson

from schemas.envelope import Headers
from schemas.publish import file_name
from schemas.settings import KafkaSettings
from schemas.topics import DEFAULT_PREFIX, TOPICS, Topic, topic_config
from schemas.values import Json

VERSION: Final = "1.0.0"
SCHEMA_FORMAT: Final = "application/schema+json;version=draft-2020-12"
BINDING: Final = "0.5.0"

Family: TypeAlias = Literal[
    "captured", "bodies", "events", "states", "dead letters", "alerts", "batches", "deliveries"
]
"""Messages that carry the same headers."""


@dataclass(frozen=True, slots=True)
class Message:
    """A kind of record. Without `schema` the value is bytes as they were sent."""

    name: str
    topic: str
    family: Family
    ce_type: str
    schema: str
    says: str


MESSAGES: Final[Mapping[str, Message]] = {
    message.name: message
    for message in (
        Message(
            "captured", "captured", "captured", "org.commcare.forwarded", "",
            "A request of CommCare HQ: the body, byte for byte. "
            "Null if the body lies in pieces on the topic bodies (header casewire-claim).",
        ),
        Message(
            "body-piece", "bodies", "bodies", "", "",
            "A piece, of 1 MiB at most, of a body too large for one record.",
        ),
        Message(
            "case-snapshot", "cases", "events", "org.commcare.case.snapshot", "case/1",
            "A case as it was forwarded, from JSON or XML.",
        ),
        Message(
            "form-submitted", "forms", "events", "org.commcare.form.submitted", "form/1",
            "A form as it was forwarded, from JSON or XML.",
        ),
        Message(
            "form-referred", "forms", "events", "org.commcare.form.referred", "form/1",
            "A form that one project sends to another; it is not about this project's cases.",
        ),
        Message(
            "case-changed", "case-changes", "events", "org.commcare.case.changed", "case-change/1",
            "What a form says of a case: one event a case block, in document order.",
        ),
        Message(
            "form-stub", "form-stubs", "events", "org.commcare.form.stub", "form-stub/1",
            "That a form was received, and the cases that it touched.",
        ),
        Message(
            "app-changed", "app-changes", "events", "org.commcare.app.changed", "app-change/1",
            "That an app, or a build of one, was saved.",
        ),
        Message(
            "user-saved", "users", "events", "org.commcare.user.saved", "user/1",
            "A mobile worker.",
        ),
        Message(
            "location-saved", "locations", "events", "org.commcare.location.saved", "location/1",
            "A location.",
        ),
        Message(
            "custom", "custom", "events", "org.commcare.custom", "custom/1",
            "What a configurable forwarder sent to an address with a label.",
        ),
        Message(
            "datasource-changed", "custom", "events", "org.commcare.datasource.changed", "custom/1",
            "Rows of a data source that were added, changed or removed.",
        ),
        Message(
            "case-state", "case-state", "states", "org.commcare.case.state", "case-state/1",
            "The latest state of a case.",
        ),
        Message(
            "form-state", "form-state", "states", "org.commcare.form.state", "form-state/1",
            "The latest version of a form.",
        ),
        Message(
            "user-state", "user-state", "states", "org.commcare.user.state", "user-state/1",
            "A mobile worker as last saved.",
        ),
        Message(
            "location-state", "location-state", "states", "org.commcare.location.state",
            "location-state/1", "A location as last saved.",
        ),
        Message(
            "dead-letter", "dead-letters", "dead letters", "casewire.dead-letter", "dead-letter/1",
            "A record that could not be processed, with all that is needed to repair it.",
        ),
        Message(
            "alert", "alerts", "alerts", "casewire.alert", "alert/1",
            "What an operator must know of and act on.",
        ),
        Message(
            "batch-delivery", "deliveries", "batches", "casewire.delivery", "batch-delivery/1",
            "How many events of a range of offsets ended how.",
        ),
        Message(
            "event-delivery", "deliveries", "deliveries", "casewire.delivery", "event-delivery/1",
            "How an event ended that was not applied.",
        ),
    )
}  # fmt: skip


#: What Casewire keeps for itself, in a form that may change at any time.
INTERNAL: Final[Sequence[str]] = ("case-folds", "replays", "dead-letter-state", "alert-state")


@dataclass(frozen=True, slots=True)
class Header:
    """A header, the families that always carry it, and those that do where it applies."""

    name: str
    says: str
    always: Sequence[Family]
    sometimes: Sequence[Family] = ()


_REQUEST: Final[Sequence[Family]] = ("captured", "events")
#: A state that is published again has no request (streams/republish.py).
_FROM_REQUEST: Final[Sequence[Family]] = ("states", "dead letters")
_HTTP: Final[Sequence[Family]] = ("captured", "events", "states")
_DERIVED: Final[Sequence[Family]] = ("events", "states", "dead letters")
_ENVELOPE: Final[Sequence[Family]] = (*_HTTP, "dead letters", "alerts", "batches", "deliveries")
_TRACED: Final[Sequence[Family]] = ("dead letters", "deliveries")

#: Contract §4. Dead letters and deliveries carry of it what the record in question had.
HEADERS: Final[Sequence[Header]] = (
    Header("ce_specversion", "Version of CloudEvents", _ENVELOPE),
    Header(
        "ce_id",
        "The record's own id, the key for idempotency: of a captured event a UUIDv7, of what is "
        "derived from it `<captured id>/<stage>/<ordinal>`, the same when work is done twice",
        (*_HTTP, "dead letters", "alerts"),
    ),
    Header(
        "ce_source",
        "The project that sent it; of an alert Casewire itself",
        (*_HTTP, "alerts"),
        _TRACED,
    ),
    Header("ce_type", "The kind of record", _ENVELOPE),
    Header(
        "ce_time",
        "When the ingress received the request, on everything derived from it too; of an alert, "
        "when it was raised",
        (*_HTTP, "alerts"),
        _TRACED,
    ),
    Header(
        "ce_subject", "Id of the case, form, … that the record is about", _DERIVED, ["deliveries"]
    ),
    Header(
        "content-type",
        "Of the value; of a captured one as sent",
        (*_DERIVED, "alerts"),
        ["captured"],
    ),
    Header("casewire-content-type", "Content type as sent", (), _DERIVED),
    Header("casewire-domain", "Project space, from the address", _HTTP, _TRACED),
    Header("casewire-label", "The address's label, if it has one", (), (*_HTTP, "dead letters")),
    Header("casewire-method", "HTTP method", _REQUEST, _FROM_REQUEST),
    Header("casewire-path", "Path of the address", _REQUEST, _FROM_REQUEST),
    Header(
        "casewire-query",
        "Query of the address: `app_id` and configured names only",
        (),
        (*_HTTP, "dead letters"),
    ),
    Header(
        "casewire-origin",
        "Where the event comes from: `live` is HQ's own forwarding, `replay` an operator who has "
        "it processed again",
        _REQUEST,
        _FROM_REQUEST,
    ),
    Header(
        "casewire-attempts",
        "Which attempt this is at an event that was a dead letter, and is replayed",
        (),
        ["events"],
    ),
    Header("casewire-captured-id", "`ce_id` of the captured event", _DERIVED, ["deliveries"]),
    Header(
        "casewire-schema",
        "Name and version of the value's JSON Schema",
        (*_DERIVED, "alerts", "batches", "deliveries"),
    ),
    Header("received-on", "HQ's: when it received the form", (), (*_HTTP, "dead letters")),
    Header("server-modified-on", "HQ's: when the case last changed", (), (*_HTTP, "dead letters")),
    Header(
        "casewire-version", "Only grows for a key; guard copies by it", ["states"], ["dead letters"]
    ),
    Header("casewire-writer", "The run of the worker that wrote it", ["states"], ["dead letters"]),
    Header(
        "casewire-doubt",
        "Why the state is doubtful: `order` of two snapshots, or `forms` that no snapshot knows",
        (),
        ["states", "dead letters"],
    ),
    Header(
        "casewire-claim",
        "`<pieces>;<bytes>;<sha256>` of a body in pieces",
        (),
        (*_HTTP, "dead letters"),
    ),
    Header("casewire-piece", "Number of the piece, from 0", ["bodies"]),
)

_PATTERNS: Final[Mapping[str, str]] = {
    "ce_specversion": r"^1\.0$",
    "ce_time": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$",
    "casewire-version": r"^\d+$",
    "casewire-claim": r"^\d+;\d+;[0-9a-f]{64}$",
    "casewire-piece": r"^\d+$",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A real record of a kind of `MESSAGES`, and what it shows."""

    message: str
    says: str
    key: bytes
    headers: Headers
    value: bytes | None

    def payload(self) -> Json:
        """Return the value as JSON, or as text if it is bytes as they were sent."""
        if MESSAGES[self.message].schema and self.value is not None:
            return orjson.loads(self.value)
        return None if self.value is None else self.value.decode()


def reserved() -> Sequence[str]:
    """Return the topics that exist and that nothing writes to yet."""
    written = {*INTERNAL, *(message.topic for message in MESSAGES.values())}
    return [name for name in TOPICS if name not in written]


def header_example(name: str, samples: Iterable[Sample]) -> str:
    """Return the value that the first of the samples has that carries the header."""
    return next(text.decode() for sample in samples for key, text in sample.headers if key == name)


def document(samples: Sequence[Sample]) -> dict[str, Json]:
    """Return the AsyncAPI document. References to schemas are relative to the folder `schemas`."""
    offered = {message.topic for message in MESSAGES.values()}
    topics = [topic for name, topic in TOPICS.items() if name in offered]
    return {
        "asyncapi": "3.0.0",
        "id": "urn:casewire:topics",
        "info": {
            "title": "Casewire's topics",
            "version": VERSION,
            "description": (
                "What Casewire writes to Kafka, for subscribers; docs/topics.md tells how to read "
                "it. Delivery is at least once. Topics that are internal, or that nothing writes "
                "to yet, are left out. The prefix of all topics is configurable."
            ),
            "license": {"name": "BSD-3-Clause"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "127.0.0.1:9092",
                "protocol": "kafka",
                "description": "The broker of `casewire up`, or the cluster that is configured.",
            }
        },
        "channels": {topic.name: _channel(topic) for topic in topics},
        "operations": {f"send-{topic.name}": _operation(topic) for topic in topics},
        "components": {
            "messages": {name: _message(message, samples) for name, message in MESSAGES.items()},
            "schemas": {
                _headers_name(family): _headers_schema(family, samples)
                for family in dict.fromkeys(message.family for message in MESSAGES.values())
            },
        },
    }


def _messages_of(topic: Topic) -> Sequence[Message]:
    return [message for message in MESSAGES.values() if message.topic == topic.name]


def _channel(topic: Topic) -> dict[str, Json]:
    kafka = KafkaSettings()
    config: dict[str, Json] = {
        name: int(text) if text.isdigit() else [text]
        for name, text in topic_config(topic, replication=kafka.replication, retention_bytes=-1)
        .items()
        if name in {"cleanup.policy", "retention.ms", "delete.retention.ms", "max.message.bytes"}
    }  # fmt: skip
    return {
        "address": DEFAULT_PREFIX + topic.name,
        "description": " ".join(message.says for message in _messages_of(topic)),
        "messages": {
            message.name: {"$ref": f"#/components/messages/{message.name}"}
            for message in _messages_of(topic)
        },
        "bindings": {
            "kafka": {
                "topic": DEFAULT_PREFIX + topic.name,
                "partitions": kafka.partitions,
                "replicas": kafka.replication,
                "topicConfiguration": config,
                "bindingVersion": BINDING,
            }
        },
    }


def _operation(topic: Topic) -> dict[str, Json]:
    channel = f"#/channels/{topic.name}"
    return {
        "action": "send",
        "summary": f"Casewire writes to {DEFAULT_PREFIX}{topic.name}; subscribers read it.",
        "channel": {"$ref": channel},
        "messages": [
            {"$ref": f"{channel}/messages/{message.name}"} for message in _messages_of(topic)
        ],
    }


def _message(message: Message, samples: Sequence[Sample]) -> dict[str, Json]:
    fixed = {"ce_type": message.ce_type, "casewire-schema": message.schema}
    described: dict[str, Json] = {
        "name": message.ce_type or message.name,
        "summary": message.says,
        "headers": {
            "type": "object",
            "allOf": [{"$ref": f"#/components/schemas/{_headers_name(message.family)}"}],
            "properties": {name: {"const": text} for name, text in fixed.items() if text},
        },
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": TOPICS[message.topic].key},
                "bindingVersion": BINDING,
            }
        },
        "examples": [
            {
                "name": f"{message.name}-{number}",
                "summary": sample.says,
                "headers": {name: text.decode() for name, text in sample.headers},
                "payload": sample.payload(),
            }
            for number, sample in enumerate(
                (sample for sample in samples if sample.message == message.name), start=1
            )
        ],
    }
    if not message.schema:
        return described | {"contentType": "application/octet-stream"}
    schema = {"$ref": f"./published/{file_name(message.schema)}"}
    return described | {"payload": {"schemaFormat": SCHEMA_FORMAT, "schema": schema}}


def _headers_name(family: Family) -> str:
    return family.replace(" ", "-") + "-headers"


def _headers_schema(family: Family, samples: Sequence[Sample]) -> dict[str, Json]:
    """Return the schema of a family's headers. Request headers that it does not name pass."""
    carried = [header for header in HEADERS if family in (*header.always, *header.sometimes)]
    return {
        "type": "object",
        "required": [header.name for header in carried if family in header.always],
        "properties": {
            header.name: {
                "type": "string",
                "description": header.says,
                **({"pattern": _PATTERNS[header.name]} if header.name in _PATTERNS else {}),
                "examples": [header_example(header.name, samples)],
            }
            for header in carried
        },
    }
