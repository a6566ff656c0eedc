"""`casewire ingress`: the ASGI application on its server, with its health."""

import gc
import resource
from collections.abc import Callable
from typing import Final

import click
import uvloop

from casewire.auth_reload import following_files, read_policy, tell_of_missing_keys
from casewire.cli import Launch
from casewire.config import Config
from casewire.data_dir import open_data_dir
from casewire.health import Health, serving_health
from casewire.ingress_workers import keep_workers, worker_command
from casewire.logs import set_up_logs
from casewire.tracing import tracing
from ingress.access import Access
from ingress.app import create_app
from ingress.following import FollowedPublisher, Timed
from ingress.server import serve
from ingress.spool_publisher import create_publisher
from schemas.tracing import Tracer

#: Objects that have come and stayed before the garbage collector looks at them.
_COLLECTED_AFTER: Final = 20_000
#: Log, brokers, spool, health, and what the interpreter opens.
_OTHER_FILES: Final = 256


@click.command(epilog="Example: CASEWIRE_INGRESS_BIND=127.0.0.1:8090 casewire ingress --workers 2")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that share the address; one of them is enough for 10,000 events a second.",
)
@click.pass_obj
def ingress(launch: Launch, workers: int) -> None:
    """Take what CommCare HQ forwards and store it in Kafka, until stopped.

    SIGTERM finishes what is under way and ends within 10 seconds. SIGHUP reads the credentials
    again.
    """
    config = launch.config()
    set_up_logs("ingress", config.machine.log_level)
    open_data_dir(config.data_dir)
    if workers > 1:
        uvloop.run(keep_workers(worker_command(launch.file), workers))
        return
    _raise_file_limit(config.ingress.max_connections)
    with tracing(config.tracing, "ingress") as tracer:
        uvloop.run(_run(config, launch.config, tracer))


def files_wanted(connections: int) -> int:
    """Return how many files an ingress may have open with so many connections."""
    return 2 * connections + _OTHER_FILES


def _raise_file_limit(connections: int) -> None:
    """Allow as many open files as the connections need, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files_wanted(connections)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _run(config: Config, load: Callable[[], Config], tracer: Tracer | None) -> None:
    publisher = create_publisher(config.cluster, config.ingress, config.data_dir / "spool")
    access = Access(read_policy(config))
    tell_of_missing_keys(access.policy)
    if tracer is None:
        app = create_app(config.ingress, access, publisher)
    else:
        topic, continues = config.cluster.topic("captured"), config.tracing.continue_incoming
        followed = FollowedPublisher(publisher, tracer, topic, continues=continues)
        app = create_app(config.ingress, access, followed)
        app.forward = Timed(app.forward)
    # What is here by now stays. The garbage collector would look through all of it again and again,
    # and let a request wait for 30 ms each time. Requests leave no circles behind: what is under
    # way need not be looked through at every 700th object either.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER)
    health = Health(live=publisher.live, ready=publisher.ready)
    async with (
        serving_health(
            health, role="ingress", bind=config.machine.metrics_bind, run_dir=config.run_dir
        ),
        following_files(access, config, load),
    ):
        await serve(app, config.ingress.bind, config.ingress, metrics=app.metrics)
