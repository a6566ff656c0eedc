"""`casewire dead-letters`: what could not be processed, by cause; and what is done about it."""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import click
import orjson
from rich.console import Console
from rich.text import Text

from casewire.aligned import aligned, to_second
from casewire.choosing import Choice, choice_options
from casewire.cli import Launch
from casewire.dead_letters import (
    Letter,
    Status,
    Tally,
    Wanted,
    find_letters,
    tallies,
)
from casewire.files import FILE
from casewire.forwarder import shown_progress
from casewire.letter_replay import (
    Order,
    discard_letters,
    no_such_letter,
    readable,
    replay_letters,
    whole_letters,
)
from casewire.mending import read_mending
from casewire.replay_writer import confirm, operator
from casewire.tail import text
from schemas.dead_letter import DeadLetter
from schemas.errors import Cause, ConfigError, InvalidEventError
from schemas.settings import KafkaSettings
from schemas.values import Json
from streams.records import Stored

_STATUSES: Final = (*get_args(Status), "all")
_SHOWN_REFUSALS: Final = 10

Command = TypeVar("Command", bound=Callable[..., Any])


def _wanted_options(command: Command) -> Command:
    """Add the options that say which letters are meant; `_wanted` takes them."""
    for option in (
        click.option("--path", help="Only those of this field's path; '' is the whole body."),
        click.option("--cause", type=click.Choice(get_args(Cause)), help="Only those of this."),
        click.option("--sink", help="Only those of this sink: short for --stage sink:NAME."),
        click.option("--stage", help="Only those of this stage: decode, state or sink:NAME."),
    ):
        command = option(command)
    return choice_options(command)


def _wanted(values: dict[str, Any], ids: Sequence[str] = ()) -> Wanted:
    """Take which letters are meant out of a command's values."""
    sink, stage = values.pop("sink"), values.pop("stage")
    if sink and stage:
        raise click.UsageError("--sink and --stage do not go together; leave out one of them")
    return Wanted(
        ids=ids,
        choice=Choice.chosen(values),
        stage=f"sink:{sink}" if sink else stage or "",
        cause=values.pop("cause") or "",
        path=values.pop("path"),
    )


@click.group(name="dead-letters", epilog="Example: casewire dead-letters list")
def dead_letters() -> None:
    """List, show, replay and discard what could not be processed."""


@dead_letters.command(name="list", epilog="Example: casewire dead-letters list --sink warehouse")
@_wanted_options
@click.option("--status", type=click.Choice(_STATUSES), default="open", show_default=True)
@click.option("--each", is_flag=True, help="List the letters one by one, with their ids.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_obj
def list_(launch: Launch, /, *, status: str, each: bool, as_json: bool, **values: Any) -> None:
    """List the dead letters by project space, stage, cause and path, with how many they are."""
    found = asyncio.run(find_letters(launch.config().cluster, _wanted(values)))
    letters = [letter for letter in found if status in ("all", letter.status)]
    rows = letters if each else tallies(letters)
    if as_json:
        click.echo(orjson.dumps([_row(row) for row in rows]))
    elif not rows:
        click.echo(f"there are no dead letters that are {status}" if status != "all" else "none")
    else:
        for line in _letter_lines(letters) if each else _lines(tallies(letters)):
            click.echo(line)


@dead_letters.command(epilog="Example: casewire dead-letters show 01a202b2-c500-7000-8000-00000001")
@click.argument("id_", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_obj
def show(launch: Launch, /, id_: str, *, as_json: bool) -> None:
    """Show the dead letter ID, or those of the captured event ID.

    All of it is shown, the body and the target's own words too: they may be about people. Neither
    is ever in a log or an alert.
    """
    shown = asyncio.run(whole_letters(launch.config().cluster, id_))
    if as_json:
        click.echo(orjson.dumps([_as_json(*each) for each in shown]))
        return
    console = Console(highlight=False)
    for letter, value, original in shown:
        for line in _told(letter, value, original):
            console.print(line, soft_wrap=True)


@dead_letters.command(
    epilog="Example: casewire dead-letters replay --stage decode --cause malformed_json"
)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_wanted_options
@click.option("--patch", type=FILE, help="A JSON Patch (RFC 6902) for each body, before.")
@click.option("--body", type=FILE, help="A body instead of the letter's own; for one letter.")
@click.option("--reason", default="", help="Why; kept beside the letter.")
@click.option("--yes", is_flag=True, help="Ask nothing, however many they are.")
@click.pass_context
def replay(
    context: click.Context,
    /,
    *,
    ids: Sequence[str],
    patch: Path | None,
    body: Path | None,
    **values: Any,
) -> None:
    """Have open dead letters processed again, in the stage that failed.

    Those that fail again are dead letters again. A repair is kept beside the letter, which stays as
    it is. To replay one twice is harmless: nothing is ever made older.
    """
    kafka = context.ensure_object(Launch).config().cluster
    reason, yes = values.pop("reason"), values.pop("yes")
    letters = _open(kafka, _wanted(values, ids))
    mending = read_mending(patch, body)
    if body is not None and len(letters) > 1:
        raise ConfigError(f"--body is for one letter, and these are {len(letters)}; name its ID")
    confirm(f"Replay {len(letters):,} dead letters?", len(letters), yes=yes)
    refused = _replay(kafka, letters, Order(by=operator(), reason=reason, mending=mending))
    click.echo(f"dead letters sent to be processed again: {len(letters) - len(refused):,}")
    for letter, why in refused[:_SHOWN_REFUSALS]:
        click.echo(f"casewire: {letter.id} stays open: {why}", err=True)
    if len(refused) > _SHOWN_REFUSALS:
        click.echo(f"casewire: {len(refused) - _SHOWN_REFUSALS:,} more stay open", err=True)
    context.exit(1 if refused else 0)


@dead_letters.command(
    epilog='Example: casewire dead-letters discard --cause unknown_kind --reason "a test of ours"'
)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_wanted_options
@click.option("--reason", required=True, help="Why; kept beside the letter.")
@click.option("--yes", is_flag=True, help="Ask nothing, however many they are.")
@click.pass_obj
def discard(
    launch: Launch, /, *, ids: Sequence[str], reason: str, yes: bool, **values: Any
) -> None:
    """Close open dead letters for good. They stay on their topic, with who did it and why."""
    kafka = launch.config().cluster
    letters = _open(kafka, _wanted(values, ids))
    confirm(f"Discard {len(letters):,} dead letters?", len(letters), yes=yes)
    asyncio.run(discard_letters(kafka, letters, Order(by=operator(), reason=reason)))
    click.echo(f"dead letters discarded: {len(letters):,}")


def _open(kafka: KafkaSettings, wanted: Wanted) -> Sequence[Letter]:
    """Return the open ones of the letters that are meant. Raises ConfigError if an id has none."""
    if not wanted.narrows:
        raise click.UsageError("say which letters: by ID, or by an option such as --cause")
    found = asyncio.run(find_letters(kafka, wanted))
    known = {each for letter in found for each in (letter.id, letter.captured_id)}
    for missing in (each for each in wanted.ids if each not in known):
        raise ConfigError(no_such_letter(missing))
    letters = [letter for letter in found if letter.status == "open"]
    if len(letters) < len(found):
        click.echo(f"closed already, and left so: {len(found) - len(letters):,}")
    return letters


def _replay(
    kafka: KafkaSettings, letters: Sequence[Letter], order: Order
) -> Sequence[tuple[Letter, str]]:
    with shown_progress(len(letters)) as progress:
        return asyncio.run(replay_letters(kafka, letters, order, progress))


def _row(row: Letter | Tally) -> dict[str, Json]:
    """Return a letter or a group's tally as JSON has it, the group's own keys among the others."""
    fields: dict[str, Json] = {
        name: getattr(row, name) for name in type(row).__slots__ if name not in _INNER
    }
    if isinstance(row, Letter):
        fields |= {"status": row.status, "state": _state(row)}
    return asdict(row.group) | fields


_INNER: Final = ("group", "key", "place", "state")


def _state(letter: Letter) -> Json:
    return None if letter.state is None else orjson.loads(letter.state.to_json())


def _as_json(
    letter: Letter, value: DeadLetter, original: Stored | InvalidEventError
) -> dict[str, Json]:
    shown = _row(letter) | {"target_error": value.target_error, "retryable": value.retryable}
    if isinstance(original, InvalidEventError):
        return shown | {"body": None, "missing": str(original)}
    return shown | {
        "key": text(original.key or b""),
        "headers": [(name, text(header)) for name, header in original.headers],
        "body": None if original.value is None else b64encode(original.value).decode(),
    }


def _lines(rows: Sequence[Tally]) -> Iterator[str]:
    heads = ("count", "project space", "stage", "cause", "path", "first", "last")
    cells = [
        (f"{row.count:,}", *asdict(row.group).values(), to_second(row.first), to_second(row.last))
        for row in rows
    ]
    return aligned([heads, *cells])


def _letter_lines(letters: Sequence[Letter]) -> Iterator[str]:
    heads = ("received", "status", "project space", "stage", "cause", "about", "id")
    cells = [
        (
            to_second(letter.captured_at),
            letter.status,
            letter.group.domain,
            letter.group.stage,
            letter.group.cause,
            f"{letter.kind} {letter.subject}".strip(),
            letter.id,
        )
        for letter in letters
    ]
    return aligned([heads, *cells])


def _told(
    letter: Letter, value: DeadLetter, original: Stored | InvalidEventError
) -> Iterator[Text]:
    """Yield what to print of a letter."""
    yield Text(letter.id, "bold")
    place = f"{value.original['topic']}/{value.original['partition']}@{value.original['offset']}"
    facts = {
        "status": letter.status,
        "project space": value.domain,
        "about": f"{letter.kind} {letter.subject}".strip(),
        "stage": value.stage,
        "cause": value.cause,
        "explanation": value.explanation,
        "path": value.path,
        "received": letter.captured_at,
        "failed": f"{value.failed_at}, attempt {value.attempts}",
        "lay at": place,
        "target said": value.target_error,
    }
    if letter.state is not None:
        facts["closed"] = f"{letter.state.at} by {letter.state.by}: {letter.state.reason}"
        facts["repaired"] = _repair(letter.state.repair)
    for name, said in facts.items():
        if said:
            yield Text.assemble((f"{name:14}", "dim"), said)
    if isinstance(original, InvalidEventError):
        yield Text(str(original), "yellow")
    else:
        yield Text(readable(original.value))


def _repair(repair: Json) -> str:
    if repair is None:
        return ""
    return "a whole body" if repair["body"] else orjson.dumps(repair["patch"]).decode()
