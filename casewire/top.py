"""`casewire top`: what goes on now, on one screen, anew each second."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence, Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import click
import orjson
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from casewire.circuits import waiting_sinks
from casewire.cli import Launch
from casewire.config import Config
from casewire.doctor.processes import missing_roles
from casewire.failures import Cause, OpenAlert
from casewire.overview import Flow, Overview, Reader, Watch
from casewire.sink_config import sources
from schemas.errors import UnavailableError

_EVERY_SECONDS: Final = 1.0
#: What has waited for longer is worth a look.
_LATE_SECONDS: Final = 60
_MOST_CAUSES: Final = 5
_MOST_ALERTS: Final = 3
_FLOWS_SIDE_BY_SIDE: Final = 3
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"))


@click.command(epilog="Example: casewire top --json")
@click.option("--json", "as_json", is_flag=True, help="Print one look as JSON.")
@click.pass_obj
def top(launch: Launch, /, *, as_json: bool) -> None:
    """Show what comes, what waits for whom, what failed, and alerts, each second until Ctrl-C.

    Of each reader: how many events wait for it, how long ago the oldest of them came, how many it
    takes a second. Where the output is no terminal it is shown once.
    """
    config = launch.config()
    console = Console(highlight=False)
    with contextlib.suppress(KeyboardInterrupt):
        if as_json or not console.is_terminal or console.is_dumb_terminal:
            overview, waiting = asyncio.run(_once(config))
            if as_json:
                click.echo(orjson.dumps(overview))
            else:
                console.print(shown(overview, waiting, missing_roles(config)))
        else:
            # What they would tell, the screen tells.
            logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
            asyncio.run(_on_screen(config, console))


async def _once(config: Config) -> tuple[Overview, AbstractSet[str]]:
    """Return a second look, since the first has no rates, and the sinks that wait."""
    async with Watch(config.cluster, sources(config.sinks)) as watch:
        await watch.look()
        await asyncio.sleep(_EVERY_SECONDS)
        return await watch.look(), await waiting_sinks(config.run_dir)


async def _on_screen(config: Config, console: Console) -> None:
    overview: RenderableType = Text("looking …")
    async with Watch(config.cluster, sources(config.sinks)) as watch:
        with Live(overview, console=console, screen=True, auto_refresh=False) as live:
            while True:
                began = time.monotonic()
                try:
                    looked, waiting = await watch.look(), await waiting_sinks(config.run_dir)
                    overview = shown(looked, waiting, missing_roles(config))
                    live.update(overview, refresh=True)
                except UnavailableError as error:
                    live.update(Group(Text(str(error), "bold red"), overview), refresh=True)
                await asyncio.sleep(max(0.0, began + _EVERY_SECONDS - time.monotonic()))


def shown(overview: Overview, waiting: AbstractSet[str], missing: Sequence[str]) -> RenderableType:
    """Return an overview for a terminal of 80 columns or more; the last part may be cut off.

    `waiting` are the sinks of this machine whose target is down, `missing` the roles that should
    run on it and do not.
    """
    return Group(
        Text(f"casewire top  {overview.at[:19].replace('T', ' ')} UTC", "bold"),
        *([_line(f"does not run: {', '.join(missing)}", "bold red")] if missing else []),
        _blank(),
        _flows(overview.flows),
        _blank(),
        _readers(overview, waiting),
        _blank(),
        *_causes(overview.causes),
        _blank(),
        *_alerts(overview.alerts),
    )


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for a role on all topics that it reads."""

    lag: int
    lag_seconds: float
    per_second: float | None
    topics: str

    @classmethod
    def of(cls, readers: Sequence[Reader]) -> "Waiting":
        rates = [each.per_second for each in readers if each.per_second is not None]
        late = sorted((each for each in readers if each.lag), key=lambda each: -each.lag)
        return cls(
            lag=sum(each.lag for each in readers),
            lag_seconds=max(each.lag_seconds for each in readers),
            per_second=sum(rates) if rates else None,
            topics=", ".join(f"{each.topic} {each.lag:,}" for each in late),
        )


def _readers(overview: Overview, waiting: AbstractSet[str]) -> Table:
    table = _table(
        ("reader", "left"), ("waiting", "right"), ("oldest", "right"), ("per s", "right")
    )
    table.add_column("of")  # the only one that gives way
    for role in dict.fromkeys(each.role for each in overview.readers):
        found = Waiting.of([each for each in overview.readers if each.role == role])
        style = "red" if found.lag_seconds > _LATE_SECONDS else ""
        table.add_row(
            Text(role),
            Text(f"{found.lag:,}", style),
            Text(age(found.lag_seconds) if found.lag else "-", style),
            rate(found.per_second),
            _trouble(role, overview.alerts, waiting) or _line(found.topics, "dim"),
        )
    return table


def _trouble(role: str, alerts: Sequence[OpenAlert], waiting: AbstractSet[str]) -> Text | None:
    """Return what is wrong with a sink as a whole, if anything is: an alert says it best."""
    name = role.removeprefix("sink-")
    for each in alerts:
        if each.stage == f"sink:{name}" and each.cause.startswith("target_"):
            return _line(f"{each.cause}: {each.text}", "red")
    if role != name and name in waiting:
        return _line("its target is down, single records are tried", "red")
    return None


def _causes(causes: Sequence[Cause]) -> Iterator[RenderableType]:
    if not causes:
        yield Text("dead letters: none is open", "dim")
        return
    table = _table(("dead letters", "left"), ("", "left"), ("open", "right"), ("last", "left"))
    for each in causes[:_MOST_CAUSES]:
        table.add_row(each.stage, each.cause, f"{each.count:,}", _minute(each.last))
    yield table
    yield from _more(len(causes) - _MOST_CAUSES, "casewire dead-letters list")


def _alerts(alerts: Sequence[OpenAlert]) -> Iterator[RenderableType]:
    if not alerts:
        yield Text("alerts: none is open", "dim")
        return
    yield Text("alerts", "bold")
    for each in alerts[:_MOST_ALERTS]:
        what = f"muted until {_minute(each.muted_until)}" if each.muted_until else each.status
        yield _line(f"{each.group}  {what}, since {_minute(each.since)}", "yellow")
        yield _line(f"  {each.text}")
    yield from _more(len(alerts) - _MOST_ALERTS, "casewire alerts list")


def _flows(flows: Sequence[Flow]) -> Table:
    """Return the topics that hold something, from top to bottom, then from left to right."""
    filled = [each for each in flows if each.records]
    rows = -(-len(filled) // _FLOWS_SIDE_BY_SIDE)
    table = _table(*(("topic", "left"), ("per s", "right")) * _FLOWS_SIDE_BY_SIDE)
    for number in range(rows):
        row = [(flow.name, rate(flow.per_second)) for flow in filled[number::rows]]
        table.add_row(*(cell for cells in row for cell in cells))
    return table


def _more(count: int, command: str) -> Iterator[RenderableType]:
    if count > 0:
        yield Text(f"and {count} more: {command}", "dim")


def age(seconds: float) -> str:
    """Return a span in the largest unit of which it has two, at least seconds."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def rate(per_second: float | None) -> str:
    if per_second is None:
        return "-"
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.1f}"


def _minute(at: str) -> str:
    return at[:16].replace("T", " ")


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _blank() -> Text:
    return Text("")


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    return table
