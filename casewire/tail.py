"""`casewire tail`: prints events of one topic as they come."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final, Self

import click
import orjson
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from casewire.cli import Launch
from casewire.reading import consuming
from casewire.tables import nearest
from casewire.topics import partition_numbers, unanswered
from schemas.envelope import Headers
from schemas.errors import ConfigError
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS
from schemas.values import Json
from streams.records import Record

_TYPE_PREFIXES: Final = ("org.commcare.", "casewire.")
#: The keys by which a value names the cases and forms that it is about.
_ID_KEYS: Final = ("case_id", "form_id", "id")
_ID_LIST_KEYS: Final = ("xform_ids", "case_ids")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A record with what a person wants to know of it. `time` is when the ingress received it."""

    topic: str
    partition: int
    offset: int
    key: str
    time: str
    type: str
    domain: str
    subject: str
    headers: Headers
    value: bytes | None

    @classmethod
    def of(cls, record: Record) -> Self:
        headers = list(record.headers)
        first = {name: text(value) for name, value in reversed(headers)}
        return cls(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=text(record.key or b""),
            time=first.get("ce_time", ""),
            type=first.get("ce_type", ""),
            domain=first.get("casewire-domain", ""),
            subject=first.get("ce_subject", ""),
            headers=headers,
            value=record.value,
        )

    def decoded(self) -> Json:
        """Return the value as JSON if it is that, else as text, else as base64."""
        if self.value is None:
            return None
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(self.value)
        try:
            return self.value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(self.value).decode()}

    def to_json(self) -> bytes:
        names = ("topic", "partition", "offset", "key", "time", "type", "domain", "subject")
        event: dict[str, Json] = {name: getattr(self, name) for name in names}
        event["headers"] = [(name, text(value)) for name, value in self.headers]
        return orjson.dumps(event | {"value": self.decoded()})

    def to_text(self) -> str:
        place = f"{self.topic}/{self.partition}@{self.offset}"
        head = " ".join(part for part in (self.time, self.type, self.key, place) if part)
        value = self.decoded()
        shown = (
            value
            if isinstance(value, str)
            else orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
        )
        return f"{head}\n{shown}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events to show; an empty text lets all pass."""

    domain: str = ""
    case: str = ""
    form: str = ""
    type: str = ""

    def passes(self, event: Event) -> bool:
        return (
            self.domain in ("", event.domain)
            and (not self.type or self.type in _names_of_type(event.type))
            and (not self.case or _is_about(event, self.case))
            and (not self.form or _is_about(event, self.form))
        )


def text(value: bytes) -> str:
    return value.decode("utf-8", errors="replace")


def _names_of_type(full: str) -> list[str]:
    short = [full.removeprefix(prefix) for prefix in _TYPE_PREFIXES if full.startswith(prefix)]
    return [full, *short]


def _is_about(event: Event, wanted: str) -> bool:
    if wanted == event.subject or wanted == event.key.rpartition("/")[2]:
        return True
    value = event.decoded()
    if not isinstance(value, dict):
        return wanted.encode() in (event.value or b"")
    if any(value.get(key) == wanted for key in _ID_KEYS):
        return True
    return any(wanted in (value.get(key) or ()) for key in _ID_LIST_KEYS)


def topic_named(kafka: KafkaSettings, name: str) -> str:
    """Return the full name of a topic given by its short or full name. Raises ConfigError."""
    short = name.removeprefix(kafka.topic_prefix) if kafka.topic_prefix else name
    if short not in TOPICS:
        raise ConfigError(f"there is no topic {name!r}; did you mean {nearest(short, [*TOPICS])}?")
    return kafka.topic(short)


async def events(
    kafka: KafkaSettings, topic: str, *, since_beginning: bool
) -> AsyncGenerator[Event, None]:
    """Yield the events of a topic (full name) without end. Raises UnavailableError."""
    partitions = [TopicPartition(*each) for each in await partition_numbers(kafka, [topic])]
    try:
        async with consuming(kafka, partitions) as consumer:
            if not since_beginning:
                await consumer.seek_to_end()
            async for record in consumer:
                yield Event.of(record)
    except KafkaError as error:
        raise await unanswered(kafka, error) from error


@click.command(epilog="Example: casewire tail case-state --domain demo --since-beginning -n 5")
@click.argument("topic")
@click.option("--domain", default="", help="Only events of this project space.")
@click.option("--case", default="", metavar="ID", help="Only events about this case.")
@click.option("--form", default="", metavar="ID", help="Only events about this form.")
@click.option("--type", default="", help="Only this type, such as case.state.")
@click.option("--since-beginning", is_flag=True, help="Begin with the oldest event that is kept.")
@click.option("--limit", "-n", type=click.IntRange(min=1), help="Stop after so many events.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_context
def tail(
    context: click.Context, /, topic: str, *, since_beginning: bool, as_json: bool, **chosen: Any
) -> None:
    """Print the events of TOPIC (cases, or casewire.cases) as they come, until Ctrl-C."""
    kafka = context.ensure_object(Launch).config().cluster
    full = topic_named(kafka, topic)
    limit = chosen.pop("limit")
    wanted = Filter(**chosen)

    async def show() -> None:
        shown = 0
        found = events(kafka, full, since_beginning=since_beginning)
        async with contextlib.aclosing(found):
            async for event in found:
                if wanted.passes(event):
                    click.echo(event.to_json() if as_json else event.to_text())
                    shown += 1
                if shown == limit:
                    return

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(show())
