"""`casewire streams` and `casewire sink`: the Faust workers with their health."""

import asyncio
import os
from collections.abc import Sequence
from typing import Final

import click
import uvloop
from prometheus_client import REGISTRY

from casewire.addresses import Address
from casewire.cli import Launch
from casewire.config import Config
from casewire.data_dir import open_data_dir
from casewire.forwarder import shown_progress
from casewire.health import Health, first_free, serving_health
from casewire.logs import set_up_logs, show_warnings
from casewire.rebuild import rebuild, rebuildable, states_to_read, told
from casewire.sink_config import choice_of, no_such_sink, sources
from casewire.starting import can_start, told_to_stop
from casewire.state_api import serving_states, told_address
from casewire.topics import require_topics
from casewire.tracing import tracing
from kafka_clients.rights import Right, rights
from schemas.errors import ConfigError
from schemas.tracing import Tracer
from sinks.registry import make_sink
from streams.app import App, create_sink_app, create_streams_app, recovered, run, stuck
from streams.delivery import Delivery, Pace
from streams.worker_metrics import WorkerMetrics

NICENESS: Final = 5


@click.command(epilog="Example: casewire streams")
@click.pass_obj
def streams(launch: Launch) -> None:
    """Decode captured events and keep the latest state of each case and form, until stopped."""
    config = launch.config()
    _prepare(config, "streams")
    with tracing(config.tracing, "streams") as tracer:
        uvloop.run(_run_streams(config, tracer))


@click.command(epilog="Example: casewire sink sqlite")
@click.argument("name")
@click.option(
    "--rebuild",
    "anew",
    is_flag=True,
    help="Write all latest states that there are now, into tables that were dropped too, and end. "
    "The sink may be running.",
)
@click.pass_obj
def sink(launch: Launch, name: str, *, anew: bool) -> None:
    """Write latest states to the sink NAME of the configuration, until stopped."""
    config = launch.config()
    if name not in config.sinks:
        raise ConfigError(no_such_sink(config.sinks, name))
    if anew:
        show_warnings()
        click.echo(uvloop.run(_rebuild_sink(config, name)))
        return
    _prepare(config, f"sink-{name}")
    with tracing(config.tracing, f"sink-{name}") as tracer:
        uvloop.run(_run_sink(config, name, tracer))


def _prepare(config: Config, role: str) -> None:
    # The ingress goes first: HQ waits for its answer, and for nothing that is done here.
    os.nice(NICENESS)
    # Faust's thread that fetches makes an event loop of its own.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    set_up_logs(role, config.machine.log_level)
    open_data_dir(config.data_dir)


def _rights(config: Config, role: str) -> Sequence[Right]:
    return rights(config.cluster, sources(config.sinks))[role]


async def _run_streams(config: Config, tracer: Tracer | None) -> None:
    stop = told_to_stop()
    if not await can_start(config, "streams", _rights(config, "streams"), stop):
        return
    address, listener = first_free(Address.parse(config.streams.bind), "CASEWIRE_STREAMS_BIND")
    told = told_address(address)
    app = create_streams_app(
        config.cluster, config.streams, config.data_dir, address=told, tracer=tracer
    )
    async with serving_states(app, config, told, listener):
        await _serve(app, "streams", config, stop, state_api=told)


async def _run_sink(config: Config, name: str, tracer: Tracer | None) -> None:
    settings, role, stop = config.sinks[name], f"sink-{name}", told_to_stop()
    if not await can_start(config, role, _rights(config, role), stop):
        return
    delivery = Delivery(
        name,
        make_sink(name, settings, config.data_dir),
        choice_of(settings, config.exclusions),
        Pace(settings.batch_rows, settings.max_per_second),
    )
    app = create_sink_app(
        delivery, settings, config.cluster, config.streams, config.data_dir, tracer
    )
    try:
        await _serve(app, role, config, stop)
    finally:
        await delivery.close()


async def _rebuild_sink(config: Config, name: str) -> str:
    settings = rebuildable(name, config.sinks[name])
    await require_topics(config.cluster, _rights(config, "operator"))
    with shown_progress(await states_to_read(config, settings)) as progress:
        return told(name, await rebuild(config, name, settings, progress))


async def _serve(
    app: App, role: str, config: Config, stop: asyncio.Event, *, state_api: str = ""
) -> None:
    started = asyncio.Event()

    def live() -> str | None:
        return stuck(app) if started.is_set() else None

    def ready() -> str | None:
        if started.is_set() and recovered(app):
            return None
        return "it is not in its group, or its tables are not recovered yet"

    REGISTRY.register(WorkerMetrics(app, role, config.cluster.short))
    async with serving_health(
        Health(live, ready),
        role=role,
        bind=config.machine.metrics_bind,
        run_dir=config.run_dir,
        state_api=state_api,
    ):
        await run(app, stop, started.set)
