"""`casewire replay`: has events processed again, or states written again to a sink."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import click
import msgspec
import orjson

from casewire.choosing import ANY, Choice, choice_options
from casewire.cli import Launch
from casewire.config import Config
from casewire.forecast import Fate, Forecast, forecast_sink, forecast_states
from casewire.forwarder import shown_progress
from casewire.replay_writer import confirm
from casewire.replaying import Chosen, choose_captured, choose_states, replay_chosen
from casewire.sink_config import no_such_sink
from schemas.errors import ConfigError

FATES: Final[dict[Fate, str]] = {
    "newer": "would be written: newer than what is there, or not there",
    "same": "would change nothing: the same is there",
    "older": "would change nothing: something newer is there",
    "excluded": "would be left out by the sink's rules",
    "sent": "would be sent again: the target cannot be asked what it has",
    "dead": "would be dead letters",
}
_SHOWN_KEYS: Final = 10
#: By a topic of states: the one of the events that they come from.
_EVENTS: Final = {"case-state": "cases", "form-state": "forms"}


@click.command(epilog="Example: casewire replay --case 0a1b2c --sink warehouse --dry-run")
@choice_options
@click.option("--sink", default="", help="Only into this sink: the states as they are now.")
@click.option("--as-recorded", is_flag=True, help="With --sink: each event as it came instead.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print what would change as JSON.")
@click.option("--yes", is_flag=True, help="Ask nothing, however many they are.")
@click.pass_obj
def replay(
    launch: Launch,
    /,
    *,
    sink: str,
    as_recorded: bool,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    **values: Any,
) -> None:
    """Have captured events processed again, in the order in which they were captured.

    With --sink, the latest states go to that sink once more, or each event if it takes every one.
    Nothing is ever made older: what is not newer than what is there changes nothing. Only what is
    sent --as-recorded may be older than what the target has, since events have no version.
    """
    config = launch.config()
    choice = Choice.chosen(values)
    if choice == ANY:
        raise click.UsageError("say which events: by --case, --form, --domain, --kind or a time")
    if sink and sink not in config.sinks:
        raise ConfigError(no_such_sink(config.sinks, sink))
    sources = sources_to_replay(config, sink, as_recorded=as_recorded)
    chosen = asyncio.run(choose_replay(config, choice, sources))
    count = sum(len(each.places) for each in chosen)
    if unread := sum(each.unread for each in chosen):
        click.echo(
            f"left out, since they cannot be read: {unread:,}; "
            "see casewire dead-letters list --stage decode",
            err=True,
        )
    if dry_run:
        _print(asyncio.run(forecast_replay(config, chosen, sink)), as_json=as_json)
        return
    confirm(f"Replay {count:,} events?", count, yes=yes)
    with shown_progress(count) as progress:
        for each in chosen:
            target = f"sink:{sink}" if sink else "decode"
            asyncio.run(replay_chosen(config.cluster, each, target, progress))
    click.echo(f"events sent to be processed again: {count:,}")


def sources_to_replay(config: Config, sink: str, *, as_recorded: bool = False) -> Sequence[str]:
    """Return the topics to replay from; none stands for what was captured. Raises ConfigError."""
    if as_recorded and not sink:
        raise click.UsageError("--as-recorded is for a sink; name it by --sink")
    if not sink:
        return ()
    settings = config.sinks[sink]
    if not as_recorded:
        return settings.sources
    each = msgspec.structs.replace(settings, every=True, topics=())
    if list(each.problems()):
        raise ConfigError(f"the sink {sink} holds latest states only; leave out --as-recorded")
    return [_EVENTS.get(source, source) for source in settings.sources]


async def choose_replay(config: Config, choice: Choice, sources: Sequence[str]) -> Sequence[Chosen]:
    if not sources:
        return [await choose_captured(config.cluster, choice)]
    return [await choose_states(config.cluster, source, choice) for source in sources]


async def forecast_replay(config: Config, chosen: Sequence[Chosen], sink: str) -> Forecast:
    if sink:
        return await forecast_sink(config, sink, chosen)
    return await forecast_states(config, chosen[0])


def _print(forecast: Forecast, *, as_json: bool) -> None:
    if as_json:
        found = {
            fate: {"count": forecast.counts[fate], "keys": list(forecast.keys.get(fate, ()))}
            for fate in FATES
        }
        click.echo(orjson.dumps(found))
        return
    if not forecast.counts:
        click.echo("there is nothing to replay")
    for fate, count in forecast.counts.items():
        keys = list(forecast.keys[fate])
        click.echo(f"{count:,} {FATES[fate]}")
        for key in keys[:_SHOWN_KEYS]:
            click.echo(f"  {key}")
        if len(keys) > _SHOWN_KEYS:
            click.echo(f"  and {len(keys) - _SHOWN_KEYS:,} more")
