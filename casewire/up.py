"""`casewire up`: everything on one machine."""

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Final

import click

from casewire.addresses import Address, require_free
from casewire.alerts.settings import AlertSettings
from casewire.broker import Broker
from casewire.cli import Launch
from casewire.config import Config
from casewire.data_dir import locked, open_data_dir
from casewire.demo import DOMAIN, require_open, run_demo, told, where_to_look
from casewire.health import Running, announce, running
from casewire.simulation import history
from casewire.supervisor import (
    Plan,
    Role,
    Say,
    Surroundings,
    health_probe,
    keep_running,
    port_probe,
)
from casewire.topics import create_topics
from schemas.errors import UnavailableError

DEMO: Final = history.Plan(domain=DOMAIN, cases=300, changes=2000)
_BROKER_STOP_SECONDS: Final = 60
#: What the slowest of them may take.
_LEFTOVER_SECONDS: Final = _BROKER_STOP_SECONDS


@click.command(epilog="Example: casewire up")
@click.option("--demo", is_flag=True, help="Send a made-up project, and show what became of it.")
@click.pass_obj
def up(launch: Launch, *, demo: bool) -> None:
    """Run a broker (if none is configured), ingress, streams, every sink, alerts and console.

    What dies is started anew. Ctrl-C stops everything in order; what was stored stays.
    """
    config = launch.config()
    if demo:
        require_open(config)
    open_data_dir(config.data_dir)
    config.run_dir.mkdir(exist_ok=True)
    with locked(config.data_dir):
        asyncio.run(_up(launch, config, demo=demo))


async def _up(launch: Launch, config: Config, *, demo: bool) -> None:
    await await_leftovers(config)
    for address, variable in _own_addresses(config):
        require_free(Address.parse(address), variable)
    around = surroundings(launch, config, click.echo)

    async def then() -> None:
        click.echo(welcome(config))
        if demo:
            click.echo(told(await run_demo(config, DEMO, click.echo)))
            click.echo(where_to_look(config, console_place(config)))

    await keep_running(await plan(launch, config, around), then)


def surroundings(launch: Launch, config: Config, say: Say) -> Surroundings:
    """Return what all child processes share: all of our environment, with our broker's address."""
    env = {
        **launch.env,
        "KAFKA_BOOTSTRAP_SERVERS": config.cluster.bootstrap_servers,
        "CASEWIRE_DATA_DIR": str(config.data_dir),
    }
    return Surroundings(run_dir=config.run_dir, env=env, say=say)


async def plan(launch: Launch, config: Config, around: Surroundings) -> Plan:
    """Return all that is to run. Getting the broker's jars may take a while the first time."""
    broker = None
    if config.own_broker:
        around.say("starting the broker")
        broker = await broker_role(config)

    async def prepare() -> None:
        await create_topics(config.cluster)
        around.say("starting ingress, streams, sinks, alerts and console")

    return Plan(
        around=around,
        broker=broker,
        prepare=prepare,
        stages=(
            (_role(launch, config, "ingress", "ingress"),),
            (_role(launch, config, "streams", "streams"),),
            tuple(
                _role(launch, config, f"sink-{name}", "sink", name, essential=False)
                for name in config.sinks
            ),
            (_role(launch, config, "alerts", "alerts", "run", essential=False),),
            (_role(launch, config, "console", "console", essential=False),),
        ),
    )


def _role(
    launch: Launch, config: Config, name: str, *arguments: str, essential: bool = True
) -> Role:
    given = ("--config", str(launch.file)) if launch.file is not None else ()
    return Role(
        name=name,
        # -P: a folder `streams` where the command was called must not stand in for ours.
        command=(sys.executable, "-P", "-m", "casewire", *given, *arguments),
        ready=health_probe(config.run_dir),
        essential=essential,
    )


async def broker_role(config: Config) -> Role:
    """Get the broker ready to start. Raises UnavailableError."""
    address = Address.parse(config.machine.broker_bind)
    with Address(address.host, 0).listening() as free:
        controller_port = free.getsockname()[1]
    broker = Broker(
        data_dir=config.data_dir / "kafka",
        host=address.host,
        port=address.port,
        controller_port=controller_port,
    )
    command = await asyncio.to_thread(broker.prepare)
    accepts = port_probe(address)

    async def ready(pid: int) -> str | None:
        reason = await accepts(pid)
        if reason is None:
            announce(config.run_dir, Running.of("broker", pid, address))
        return reason

    return Role(name="broker", command=command, ready=ready, stop_seconds=_BROKER_STOP_SECONDS)


def _own_addresses(config: Config) -> Sequence[tuple[str, str]]:
    own = [
        (config.ingress.bind, "CASEWIRE_INGRESS_BIND"),
        (config.machine.console_bind, "CASEWIRE_CONSOLE_BIND"),
    ]
    if config.own_broker:
        own.append((config.machine.broker_bind, "CASEWIRE_BROKER_BIND"))
    return own


async def await_leftovers(config: Config) -> None:
    """Wait for the processes of a `casewire up` that was killed: they are about to stop.

    Raises UnavailableError if one of them does not.
    """
    deadline = time.monotonic() + _LEFTOVER_SECONDS
    while left := running(config.run_dir):
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"{left[0].role} (process {left[0].pid}) of an earlier run still uses "
                f"{config.data_dir}; end it"
            )
        await asyncio.sleep(0.1)


def welcome(config: Config) -> str:
    """Return what to tell when all is ready."""
    places = {name: sink.place(config.data_dir) for name, sink in config.sinks.items()}
    lines = [
        "casewire is up; Ctrl-C stops it",
        f"  ingress    http://{config.ingress.bind}/api/v1/in/DOMAIN",
        *(f"  sink       {name}: {place}" for name, place in places.items()),
        *(
            f"  states     http://{each.state_api}/api/v1, token in {config.state_token_file}"
            for each in running(config.run_dir)
            if each.state_api
        ),
        f"  console    {console_place(config)}",
        f"  alerts     {told_to(config.alerts)}",
        f"  Kafka      {config.cluster.bootstrap_servers}",
        f"  logs       {config.run_dir}",
    ]
    return "\n".join(lines)


def console_place(config: Config) -> str:
    """Return where the console is, and how to log in, if not by a user's password."""
    file = config.console_token_file
    return f"http://{config.machine.console_bind}" + (f", token in {file}" if file else "")


def told_to(alerts: AlertSettings) -> str:
    """Return who is told when something goes wrong, without a secret."""
    services = [url.partition(":")[0] for url in alerts.urls]
    return ", ".join([*alerts.mail_to, *services]) or "nobody is told: see [alerts]"
