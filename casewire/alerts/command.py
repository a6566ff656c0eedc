"""`casewire alerts`: tells people what went wrong, lists it, and is told to be quiet."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import click
import orjson
from prometheus_client import REGISTRY

from casewire.alerts import metrics
from casewire.alerts.channels import channels
from casewire.alerts.decided import Decided
from casewire.alerts.messages import Message
from casewire.alerts.overview_metrics import OverviewMetrics, follow
from casewire.alerts.reports import Target
from casewire.alerts.role import AlertsRole, Outbox
from casewire.alerts.stalls import Progress
from casewire.alerts.state import Rules
from casewire.alerts.troubles import Pace, Trouble
from casewire.alerts.watch import Watch, workers
from casewire.alerts.writing import mute_group, read_troubles
from casewire.cli import Launch
from casewire.config import Config
from casewire.data_dir import open_data_dir
from casewire.health import Health, serving_health
from casewire.logs import set_up_logs
from casewire.sink_config import sources
from casewire.starting import can_start, told_to_stop
from kafka_clients.rights import rights
from schemas.errors import ConfigError, UnavailableError
from schemas.times import from_datetime

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_TEST: Final = Message(
    title="[Casewire] a test",
    body="This is a test by casewire alerts test. Alerts of Casewire come this way.\n",
    thread="",
)


@click.group(epilog="Example: casewire alerts list")
def alerts() -> None:
    """Tell people what went wrong, list what is open, and mute what is known."""


@alerts.command(epilog="Example: casewire alerts run")
@click.pass_obj
def run(launch: Launch) -> None:
    """Tell people by the channels of [alerts] what went wrong, until stopped.

    Another one that runs beside it waits, and takes over.
    """
    config = launch.config()
    set_up_logs("alerts", config.machine.log_level)
    open_data_dir(config.data_dir)
    asyncio.run(_run(config))


@alerts.command(name="list", epilog="Example: casewire alerts list --all")
@click.option("--all", "everything", is_flag=True, help="Also what is over.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@click.pass_obj
def list_alerts(launch: Launch, *, everything: bool, as_json: bool) -> None:
    """List what is open: how often it failed since when (UTC), and what people were told."""
    config = launch.config()
    found = asyncio.run(read_troubles(config.cluster))
    shown = [each for each in found if each.open or everything]
    if as_json:
        click.echo(orjson.dumps([orjson.loads(each.to_json()) for each in shown]))
        return
    for each in sorted(shown, key=lambda trouble: (not trouble.open, trouble.group)):
        click.echo(told_line(each, somebody=config.alerts.tells_somebody))
    if not shown:
        click.echo("nothing is open")


@alerts.command(epilog="Example: casewire alerts mute 'demo/decode/malformed_xml/cases' --for 2h")
@click.argument("group")
@click.option("--for", "span", default="2h", metavar="SPAN", help="30m, 2h, 3d; 0m unmutes.")
@click.pass_obj
def mute(launch: Launch, *, group: str, span: str) -> None:
    """Tell nobody of GROUP for a while. What is still open after it is told of again."""
    config = launch.config()
    until = from_datetime(datetime.now(UTC) + span_of(span))
    asyncio.run(mute_group(config.cluster, group, until))
    click.echo(f"{group} is muted until {_minute(until)} UTC")


@alerts.command(epilog="Example: casewire alerts test")
@click.pass_context
def test(context: click.Context) -> None:
    """Send a test message by every channel of [alerts]; exit with 1 if one fails."""
    found = channels(context.ensure_object(Launch).config().alerts)
    if not found:
        raise ConfigError("[alerts] names nobody; add mail_to, or urls_file")
    failed = False
    for name, channel in found.items():
        try:
            channel(_TEST)
        except UnavailableError as error:
            failed = True
            click.echo(f"{name}: {error}")
        else:
            click.echo(f"{name}: sent")
    context.exit(1 if failed else 0)


def span_of(text: str) -> timedelta:
    """Return the time that `30m`, `2h` or `3d` says. Raises click.UsageError."""
    found = re.fullmatch(r"(\d{1,4})([mhd])", text)
    if found is None:
        raise click.UsageError(f"--for {text}: write 30m, 2h or 3d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def told_line(trouble: Trouble, *, somebody: bool) -> str:
    """Return what to print of a trouble: its group on one line, for copying, the rest below.

    `somebody`: whether anybody is configured to be told.
    """
    since, last, muted = map(_minute, (trouble.since, trouble.last, trouble.muted_until))
    what = "open" if trouble.open else "recovered"
    told = "not told"
    if not somebody:
        told = "nobody is told: see [alerts]"
    elif trouble.told:
        told = f"{trouble.told} was told at {_minute(trouble.told_at)}"
    quiet = f", muted until {muted}" if trouble.muted_until else ""
    failures = f"{trouble.count} failures" if trouble.count > 1 else "1 failure"
    return f"{trouble.group}\n  {what}, {failures} from {since} to {last}; {told}{quiet}"


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")


async def _run(config: Config) -> None:
    role, stop = make_role(config), told_to_stop()
    if not await can_start(config, "alerts", rights(config.cluster, {})["alerts"], stop):
        return

    def ready() -> str | None:
        return None if role.turn.joined.is_set() else "it is not in its group yet"

    async with (
        serving_health(
            Health(lambda: role.round.overdue, ready),
            role="alerts",
            bind=config.machine.metrics_bind,
            run_dir=config.run_dir,
        ),
        _telling_metrics(config, role),
    ):
        await role.run(stop)


@asynccontextmanager
async def _telling_metrics(config: Config, role: AlertsRole) -> AsyncIterator[None]:
    """Have the metrics tell what this role does, and what it sees of the others."""
    metrics.begin(role.outbox.channels)
    told = OverviewMetrics(["decode", "state", *role.rules.targets])
    REGISTRY.register(told)
    following = asyncio.create_task(follow(config.cluster, sources(config.sinks), told))
    try:
        yield
    finally:
        following.cancel()
        await asyncio.wait([following])


def make_role(config: Config, pace: Pace | None = None) -> AlertsRole:
    """Return the role as configured. Raises ConfigError for a channel that cannot be."""
    settings = config.alerts
    found = channels(settings)
    rules = Rules(
        pace=pace or Pace(settings.interval_minutes * 60),
        channels=list(found),
        targets=_targets(config),
        silence_hours=settings.silence_hours,
    )
    watched = [Progress(worker) for worker in workers(config.cluster, config.sinks)]
    return AlertsRole(
        kafka=config.cluster,
        rules=rules,
        outbox=Outbox(found, settings.interval_minutes),
        watch=Watch(config.cluster, watched),
        decided=Decided(config.cluster),
    )


def _targets(config: Config) -> Mapping[str, Target]:
    return {
        f"sink:{name}": Target(sink.place(config.data_dir), sink.errors_are_safe)
        for name, sink in config.sinks.items()
    }
