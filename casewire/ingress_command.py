"""`casewire ingress`: the ASGI application on its server, with its health."""

from collections.abc import Callable

import click
import uvloop

from casewire.auth_reload import following_files, read_policy, tell_of_missing_keys
from casewire.cli import Launch
from casewire.config import Config
from casewire.data_dir import open_data_dir
from casewire.health import Health, serving_health
from casewire.logs import set_up_logs
from ingress.access import Access
from ingress.app import create_app
from ingress.server import serve
from ingress.spool_publisher import create_publisher


@click.command(epilog="Example: CASEWIRE_INGRESS_BIND=127.0.0.1:8090 casewire ingress")
@click.pass_obj
def ingress(launch: Launch) -> None:
    """Take what CommCare HQ forwards and store it in Kafka, until stopped."""
    config = launch.config()
    set_up_logs()
    open_data_dir(config.data_dir)
    uvloop.run(_run(config, launch.config))


async def _run(config: Config, load: Callable[[], Config]) -> None:
    publisher = create_publisher(config.cluster, config.ingress, config.data_dir / "spool")
    access = Access(read_policy(config))
    tell_of_missing_keys(access.policy)
    app = create_app(config.ingress, access, publisher)
    health = Health(live=lambda: None, ready=publisher.ready)
    async with (
        serving_health(
            health, role="ingress", bind=config.machine.metrics_bind, run_dir=config.run_dir
        ),
        following_files(access, config, load),
    ):
        await serve(app, config.ingress.bind, config.ingress, metrics=app.metrics)
