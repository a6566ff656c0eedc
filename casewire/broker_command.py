"""`casewire broker`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import click
import msgspec

from casewire.addresses import Address, require_free
from casewire.cli import Launch
from casewire.config import Config, load_config
from casewire.data_dir import locked, open_data_dir
from casewire.move import move as move_all
from casewire.supervisor import Keeper
from casewire.up import await_leftovers, broker_role, surroundings
from schemas.errors import ConfigError
from schemas.settings import KafkaSettings


@click.group(epilog="Example: casewire broker move --to kafka.example.org:9092")
def broker() -> None:
    """Move from the broker of one machine to a cluster."""


@broker.command(epilog="Example: casewire broker move --to-config casewire-cluster.toml")
@click.option("--to", metavar="HOST:PORT", help="The cluster, if all else of [kafka] stays.")
@click.option(
    "--to-config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The configuration that will be used then; its [kafka] says where and how to log in.",
)
@click.pass_obj
def move(launch: Launch, to: str | None, to_config: Path | None) -> None:
    """Copy every event, state and group's position to another cluster, at the same offsets.

    Stop everything first; the broker of `casewire up` is started for as long as it takes. A move
    that was interrupted is run again, and goes on. The old broker's data stay as they are.
    """
    config = launch.config()
    target = _target(config, to, to_config)
    asyncio.run(_move(launch, config, target))
    click.echo(
        f"everything is at {target.bootstrap_servers}, and checked; start with "
        + (
            f"--config {to_config}"
            if to_config
            else f"KAFKA_BOOTSTRAP_SERVERS={target.bootstrap_servers}"
        )
    )


def _target(config: Config, to: str | None, to_config: Path | None) -> KafkaSettings:
    if (to is None) == (to_config is None):
        raise ConfigError("name the cluster by --to or by --to-config")
    if to is not None:
        return msgspec.structs.replace(config.kafka, bootstrap_servers=to)
    found = load_config(to_config, {})
    if found.own_broker:
        raise ConfigError(f"{to_config} names no cluster; add [kafka] bootstrap_servers")
    return found.kafka


async def _move(launch: Launch, config: Config, target: KafkaSettings) -> None:
    async with _source(launch, config):
        await move_all(config.cluster, target, click.echo)


@contextlib.asynccontextmanager
async def _source(launch: Launch, config: Config) -> AsyncIterator[None]:
    """Have the broker run that is moved from; one of our own has its data for itself."""
    if not config.own_broker:
        yield
        return
    open_data_dir(config.data_dir)
    config.run_dir.mkdir(exist_ok=True)
    with locked(config.data_dir):
        await await_leftovers(config)
        require_free(Address.parse(config.machine.broker_bind), "CASEWIRE_BROKER_BIND")
        keeper = Keeper(await broker_role(config), surroundings(launch, config, click.echo))
        keeper.start()
        try:
            await keeper.until_ready()
            yield
        finally:
            await keeper.stop()
