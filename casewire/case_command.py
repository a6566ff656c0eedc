"""`casewire case`: what Casewire knows of a case, or knew at a moment, and how it came to that."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeVar

import click
import msgspec
import orjson
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from casewire.cli import Launch
from casewire.config import Config
from casewire.state_client import Happening, Held, StateClient, Story, state_client
from schemas.case import CaseState
from schemas.errors import ConfigError, QueryError
from schemas.values import Json

_FLAGS: Final = ("closed", "deleted", "doubtful")
_MARKS: Final = {"applied": "green", "stale": "yellow", "duplicate": "dim", "dead": "red"}

Found = TypeVar("Found")


@click.command(epilog="Example: casewire case 0a1b2c --domain my-project --at 2026-11-22T10:00:00Z")
@click.argument("case_id", metavar="ID")
@click.option("--domain", default="", help="Its project space; else any of the configuration.")
@click.option("--at", default="", metavar="TIME", help="At this moment: RFC 3339 with a zone.")
@click.option("--history", is_flag=True, help="Tell each event, and what it changed.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_obj
def case(
    launch: Launch, /, case_id: str, *, domain: str, at: str, history: bool, as_json: bool
) -> None:
    """Tell the latest state of the case ID, its state at a past moment, or its story.

    A streams worker is asked. A past moment is what Casewire had received till then. ID may be a
    key, my-project/0a1b2c.
    """
    if at and history:
        raise click.UsageError("--at and --history do not go together; leave out one of them")
    config = launch.config()
    if not domain and "/" in case_id:
        domain, _, case_id = case_id.partition("/")
    domains = [domain] if domain else list(config.domains)
    if not domains:
        raise ConfigError("no project space is configured; name the case's by --domain")
    if history:
        story = _first(config, domains, lambda client, each: client.story(each, case_id))
        _print(story, tell_story(story), as_json=as_json)
    else:
        held = _first(config, domains, lambda client, each: client.case(each, case_id, at))
        _print(held, tell_state(held), as_json=as_json)


def _first(
    config: Config, domains: Sequence[str], ask: Callable[[StateClient, str], Awaitable[Found]]
) -> Found:
    """Return the answer for the first project space that knows the case. Raises QueryError."""

    async def asking() -> Found:
        async with state_client(config) as client:
            for domain in domains[:-1]:
                try:
                    return await ask(client, domain)
                except QueryError as error:
                    if error.status != 404:
                        raise
            return await ask(client, domains[-1])

    return asyncio.run(asking())


def _print(found: Held | Story, lines: Iterator[RenderableType], *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    console = Console(highlight=False)
    for line in lines:
        console.print(line, soft_wrap=isinstance(line, Text))


def tell_state(held: Held) -> Iterator[RenderableType]:
    """Yield what to print of a state."""
    state = held.case()
    flags = [name for name in _FLAGS if getattr(state, name)]
    name = state.properties.get("case_name") or "without a name"
    yield Text.assemble((_text(name), "bold"), f"  {state.case_type or 'without a type'}")
    if flags:
        yield Text(", ".join(flags), "yellow")
    grid = Table.grid(padding=(0, 2))
    for label, value in _facts(held, state):
        grid.add_row(Text(label, "dim"), Text(value))
    yield grid
    values = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    values.add_column("property")
    values.add_column("value")
    for property_name, value in state.properties.items():
        values.add_row(Text(property_name), Text(_text(value)))
    yield values


def _facts(held: Held, state: CaseState) -> Iterator[tuple[str, str]]:
    yield "case", f"{state.domain}/{state.case_id}"
    if held.at is not None:
        yield "at", held.at
    yield "received", held.captured_at
    yield "modified", state.server_date_modified or "HQ does not say"
    yield "from", state.source
    yield "version", str(state.version)
    for identifier, index in (state.indices or {}).items():
        yield identifier, f"{index['case_id']} ({index['relationship']} of {index['case_type']})"


def tell_story(story: Story) -> Iterator[RenderableType]:
    """Yield what to print of a story."""
    yield Text(f"{story.domain}/{story.case_id}", "bold")
    if not story.complete:
        yield Text("what came before this is not kept any more", "yellow")
    for event in story.events:
        yield _headline(event)
        for each in event.differences or ():
            change = f"{_text(each.old)} → {_text(each.new)}"
            yield Text.assemble("    ", (f"{each.name}  ", "dim"), change)


def _headline(event: Happening) -> Text:
    outcome = event.outcome or "outcome unknown"
    line = Text.assemble(
        f"{event.captured_at}  {event.kind:8}  ", (outcome, _MARKS.get(outcome, ""))
    )
    if event.doubtful:
        line.append("  doubtful", "yellow")
    if event.form_ids:
        line.append(f"  form {', '.join(event.form_ids)}", "dim")
    return line


def _text(value: Json) -> str:
    """Return a value as a person reads it on one line."""
    if value is None:
        return "(none)"
    return value if isinstance(value, str) and value else orjson.dumps(value).decode()
