"""`casewire routes try`: which sinks an event would go to, and why not to the others."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click
import orjson

from casewire.cli import Launch
from casewire.config import Config
from casewire.files import FILE, read_file
from casewire.guess import guessed
from schemas.envelope import Address, EventIds, captured_headers
from schemas.errors import ConfigError, InvalidEventError
from schemas.values import Json
from sinks.base import Message, Source, parsed
from sinks.match import refusal
from sinks.settings import SinkTable
from streams.decode import Decoded, decode
from streams.records import Stored
from streams.state import case_judge, form_judge

_STATES: Final[Mapping[str, Source]] = {"cases": "case-state", "forms": "form-state"}


@dataclass(frozen=True, slots=True)
class Route:
    """Whether a sink would take an event, as what, and by which rule if not."""

    sink: str
    taken: bool
    source: str
    reason: str


@click.group(epilog="Example: casewire routes try case.json")
def routes() -> None:
    """Try which sinks an event would go to."""


@routes.command(name="try", epilog="Example: casewire routes try case.json --domain demo")
@click.argument("file", type=FILE)
@click.option("--domain", default="", help="The project space; else the one that the file names.")
@click.option("--json", "as_json", is_flag=True, help="Print the routes as JSON.")
@click.pass_obj
def try_(launch: Launch, file: Path, domain: str, *, as_json: bool) -> None:
    """Say to which sinks the event in FILE would go, and why not to the others.

    FILE is a body as CommCare HQ forwards it. Nothing is sent anywhere.
    """
    found = list(routes_of(launch.config(), read_file(file), domain))
    if as_json:
        click.echo(orjson.dumps([asdict(route) for route in found]))
        return
    width = max(len(route.sink) for route in found)
    for route in found:
        verdict = (
            f"takes it, as {route.source}" if route.taken else f"leaves it out: {route.reason}"
        )
        click.echo(f"{route.sink:{width}}  {verdict}")


def routes_of(config: Config, body: bytes, domain: str) -> Iterator[Route]:
    """Yield the route to each sink of a body as HQ forwards it.

    Raises ConfigError if the body is nothing that a sink could take.
    """
    messages = _messages(body, domain)
    for name, settings in config.sinks.items():
        yield _route(config, name, settings, messages)


def _route(
    config: Config, name: str, settings: SinkTable, messages: Mapping[Source, Message]
) -> Route:
    sources = [source for source in settings.sources if source in messages]
    if not sources:
        read = ", ".join(settings.sources)
        return Route(name, taken=False, source="", reason=f"it reads {read} only")
    (source,) = sources
    message = messages[source]
    if unmet := refusal(settings.match, message):
        return Route(name, taken=False, source=source, reason=f"match.{unmet} is not met")
    for excluded in settings.exclude:
        if not refusal(config.exclusions[excluded].match, message):
            reason = f"[exclusions.{excluded}] matches it"
            return Route(name, taken=False, source=source, reason=reason)
    return Route(name, taken=True, source=source, reason="")


def _messages(body: bytes, domain: str) -> Mapping[Source, Message]:
    """Return the message by each topic that a sink could read it from."""
    decoded = _decoded(body, domain)
    if decoded.topic not in _STATES:
        raise ConfigError(
            f"this is for the topic {decoded.topic}, which no sink reads; give a case or a form"
        )
    event = Stored(decoded.topic, decoded.out.key, decoded.out.value, decoded.out.headers)
    if decoded.topic == "cases":
        judged = case_judge(writer="", window_microseconds=0)(event, None)
    else:
        judged = form_judge(writer="")(event, None)
    state = judged.publish.value if judged.publish else None
    source: Source = "cases" if decoded.topic == "cases" else "forms"
    return {
        name: _message(name, event, value)
        for name, value in ((source, event.value), (_STATES[source], state))
        if value is not None
    }


def _decoded(body: bytes, domain: str) -> Decoded:
    request = guessed("", body, app_id="", received_on="")
    address = Address(
        domain=domain or _domain_of(body), label="", method="POST", path="", query=request.query
    )
    event_id, event_time = EventIds().next()
    sent = [("content-type", request.content_type), *request.headers]
    headers = captured_headers(
        event_id, event_time, address, [(name, value.encode()) for name, value in sent]
    )
    try:
        return decode(Stored("captured", event_id.encode(), body, headers))
    except InvalidEventError as error:
        raise ConfigError(f"this would be a dead letter, {error.cause}: {error}") from error


def _domain_of(body: bytes) -> str:
    try:
        value: Json = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    domain = value.get("domain") if isinstance(value, dict) else None
    return domain if isinstance(domain, str) and domain else "demo"


def _message(source: Source, event: Stored, value: bytes) -> Message:
    plain, typed = parsed(value, source)
    return Message(
        source=source,
        partition=0,
        offset=0,
        timestamp=0,
        key=(event.key or b"").decode(),
        headers=event.headers,
        value=plain,
        event=typed,
        version=0,
    )
