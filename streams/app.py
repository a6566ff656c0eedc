"""The Faust apps: `casewire streams` and `casewire sink NAME`. The way in."""

import asyncio
import contextlib
import gc
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import faust
import structlog
from faust.auth import OAuthCredentials
from mode import CrashingSupervisor

from kafka_clients.login import CLIENT_ID, client_options
from schemas.errors import named
from schemas.settings import KafkaSettings
from schemas.topics import MEBIBYTE
from schemas.tracing import Tracer
from sinks.settings import SinkTable
from streams.agents import Agent, Cases, Wiring, case_keeper, decoder, deliverer, keeper, replayer
from streams.batches.assignor import WholeAssignor
from streams.batches.batch import BatchSchema
from streams.batches.guard import no_null
from streams.batches.table import BatchTable
from streams.batches.transport import use_batches
from streams.decode import CASE_CHANGES
from streams.delivery import Delivery
from streams.disk import WorkerDisk
from streams.gathering import Gathering
from streams.replays import REPLAYS
from streams.republish import fold_headers, state_headers
from streams.settings import StreamsSettings
from streams.state import case_judge, change_judge, form_judge, location_judge, user_judge
from streams.sweep import Sweeper, nulls_of

App: TypeAlias = faust.App

_log = structlog.get_logger(__name__)

SECOND_MICROSECONDS = 1_000_000
#: What has a latest state, on `casewire.<kind>-state`.
KINDS = ("case", "form", "user", "location")
#: Batches that wait in an agent's queue; Faust's own default counts single events.
QUEUED_BATCHES = 4
#: A record batch that is fetched must fit one that is sent (measured.md §5).
FETCH_BYTES = 512 * 1024
#: A sink waits for its target with what was fetched in memory: states that are a tenth as large
#: when compressed, with their headers four times as large in Python as they were sent.
SINK_FETCH_BYTES = 64 * 1024
SEND_BYTES = 1_000_000
LARGEST_REQUEST_BYTES = 16 * 1024 * 1024
STOP_SECONDS = 20
#: For what could not stop in order.
REST_SECONDS = 3
#: After that a worker ends by force: before the 30 s after which supervisors kill it.
END_SECONDS = 25
#: Made since the last collection, and not gone by themselves, when the garbage collector looks.
COLLECTED_OBJECTS = 100_000


def create_streams_app(
    kafka: KafkaSettings,
    settings: StreamsSettings,
    data_dir: Path,
    *,
    address: str = "",
    tracer: Tracer | None = None,
) -> faust.App:
    """Return the worker that decodes captured events and keeps latest states.

    `address` (host:port) is where other workers find its state API; the default is what is bound.
    `tracer` records what becomes of events whose trace is sampled.
    """
    url = f"http://{address or settings.bind}"
    group = kafka.group("streams")
    replicas = settings.standby_replicas
    app = base_app(
        group, kafka, settings, data_dir, canonical_url=url, table_standby_replicas=replicas
    )
    use_batches(app)
    wiring = Wiring(kafka, settings.batches_ahead, settings.dead_letter_limit, tracer)
    writer = f"{os.uname().nodename}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
    window = settings.doubt_window_seconds * SECOND_MICROSECONDS
    tables = {kind: add_table(app, kafka, f"{kind}-state") for kind in KINDS}
    folds = add_table(app, kafka, "case-folds")
    if settings.tables == "rocksdb":
        disk = WorkerDisk(data_dir / "tables" / group, settings.table_cache_mb * MEBIBYTE)
        for table in (*tables.values(), folds):
            table.keep_in(disk.stores(table.name))
    for kind, table in tables.items():
        nulls = nulls_of(folds, writer) if kind == "case" else no_null
        table.guard(writer, state_headers(kind, writer), nulls)
    folds.guard(writer, fold_headers(writer))
    cases = Cases(
        states=tables["case"],
        folds=folds,
        snapshot=case_judge(writer=writer, window_microseconds=window),
        change=change_judge(writer=writer, window_microseconds=window),
    )
    sweeper = Sweeper(app, cases.states, cases.folds, writer, settings.batches_ahead)

    @app.task  # type: ignore[untyped-decorator]
    async def forget_gone_cases() -> None:
        await sweeper.run(partial(recovered, app))

    add_agent(app, kafka, ("captured",), decoder(wiring))
    add_agent(app, kafka, (REPLAYS,), replayer(wiring))
    add_agent(app, kafka, ("cases", CASE_CHANGES.topic), case_keeper(wiring, cases))
    for topic, kind, judge in (
        ("forms", "form", form_judge(writer=writer)),
        ("users", "user", user_judge(writer=writer)),
        ("locations", "location", location_judge(writer=writer)),
    ):
        add_agent(app, kafka, (topic,), keeper(wiring, tables[kind], judge, topic))
    return app


def create_sink_app(
    delivery: Delivery,
    sink: SinkTable,
    kafka: KafkaSettings,
    settings: StreamsSettings,
    data_dir: Path,
    tracer: Tracer | None = None,
) -> faust.App:
    """Return the worker that writes to a sink, with a consumer group of its own."""
    gathering = Gathering(rows=sink.batch_rows, size=sink.batch_bytes, seconds=sink.batch_seconds)
    group = kafka.group(f"sink-{delivery.name}")
    app = base_app(
        group,
        kafka,
        settings,
        data_dir,
        stream_wait_empty=False,
        stream_buffer_maxsize=1,  # more are made ready behind it
        consumer_max_fetch_size=SINK_FETCH_BYTES,
    )
    use_batches(app, excused=lambda: delivery.busy or gathering.waiting, raw=True)
    wiring = Wiring(kafka, settings.batches_ahead, settings.dead_letter_limit, tracer)
    agent = deliverer(wiring, delivery, gathering, errors_are_safe=sink.errors_are_safe)
    add_agent(app, kafka, (*sink.sources, REPLAYS), agent)
    return app


async def run(
    app: faust.App, stop: asyncio.Event, started: Callable[[], None] = lambda: None
) -> None:
    """Run a worker until `stop` is set; raise what crashed it, if something did."""
    await app.start()
    spare_the_collector()
    started()
    ends = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(app.wait_until_stopped())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    _end_at_the_latest(app)
    await stop_app(app)


def _end_at_the_latest(app: faust.App) -> None:
    """End the process even if Faust or Kafka's client cannot: a thread of theirs may be dead.

    Nothing is lost by that, and nobody else ends a worker that has crashed. One that was told to
    stop has done so.
    """

    def end() -> None:
        why = app.crash_reason
        _log.critical(
            "it could not stop in order, and ends by force", **({} if why is None else named(why))
        )
        os._exit(0 if why is None else 1)

    timer = threading.Timer(END_SECONDS, end)
    timer.daemon = True
    timer.start()


def spare_the_collector() -> None:
    """Have the garbage collector look seldom, and at nothing that start-up made.

    Records on their way hold millions of tuples, none of them in a cycle: to go through them every
    700 objects, Python's default, takes a fifth of a busy worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_OBJECTS)


async def stop_app(app: faust.App) -> None:
    """Stop a worker, with what it has begun finished; raise what crashed it, if something did.

    What a crash left unfinished is not waited for: it is never acknowledged, and done again.
    """
    crash = app.crash_reason
    if crash is not None:
        app.conf.stream_wait_empty = False
    try:
        await asyncio.wait_for(app.stop(), STOP_SECONDS)
    except TimeoutError:
        _log.warning("the worker did not stop in time", seconds=STOP_SECONDS)
        await _stop_the_rest(app)
    except Exception as error:
        await _stop_the_rest(app)
        if crash is None:
            raise
        _log.warning("what crashed did not stop in order either", **named(error))
    if crash is not None:
        raise crash


async def _stop_the_rest(app: faust.App) -> None:
    """Stop the parts of a worker whose own stop has ended before it came to them.

    A thread of theirs that goes on keeps the event loop from being closed.
    """
    app.conf.stream_wait_empty = False
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(app._stop_children(), REST_SECONDS)  # noqa: SLF001


def stuck(app: faust.App) -> str | None:
    """Return why a worker that has been started must be started anew; None if it gets on."""
    if app.crash_reason is not None:
        return f"it crashed: {type(app.crash_reason).__name__}"
    consumer: Any = app.consumer
    overdue: str | None = consumer.fetch.overdue or consumer.looking.overdue
    return overdue


def recovered(app: faust.App) -> bool:
    """Whether the worker is in its group, and its tables are as the changelogs have them.

    It may have no partition: there can be more workers than partitions.
    """
    return app.consumer_generation_id > 0 and not app.rebalancing and not app.in_recovery


def base_app(
    group: str, kafka: KafkaSettings, settings: StreamsSettings, data_dir: Path, **more: Any
) -> faust.App:
    """Return a worker without agents, with the settings that all have."""
    tables = data_dir / "tables" / group
    tables.mkdir(parents=True, exist_ok=True)
    servers = kafka.bootstrap_servers.split(",")
    return faust.App(
        group,
        broker=[f"kafka://{server}" for server in servers],
        broker_credentials=credentials(kafka),
        broker_client_id=CLIENT_ID,
        datadir=tables,
        Table=BatchTable,
        PartitionAssignor=WholeAssignor,
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        producer_max_batch_size=SEND_BYTES,
        producer_max_request_size=LARGEST_REQUEST_BYTES,
        producer_compression_type="zstd",
        producer_linger=0,
        broker_session_timeout=settings.session_timeout_seconds,
        broker_heartbeat_interval=settings.session_timeout_seconds / 5,
        broker_request_timeout=settings.session_timeout_seconds + 5,
        broker_commit_interval=1.0,
        agent_supervisor=CrashingSupervisor,
        **{
            "stream_buffer_maxsize": QUEUED_BATCHES,
            "table_standby_replicas": 0,
            "consumer_max_fetch_size": FETCH_BYTES,
            **more,
        },
    )


def credentials(kafka: KafkaSettings) -> Any:
    """Return a login as Faust has it, which gives it to aiokafka in its turn."""
    options = client_options(kafka)
    context = options.get("ssl_context")
    if "sasl_oauth_token_provider" in options:
        return OAuthCredentials(oauth_cb=options["sasl_oauth_token_provider"], ssl_context=context)
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=context,
            mechanism=options["sasl_mechanism"],
        )
    return context


def add_agent(app: faust.App, kafka: KafkaSettings, topics: Sequence[str], agent: Agent) -> None:
    """Have an agent read topics (short names)."""
    source = app.topic(*(kafka.topic(topic) for topic in topics), schema=BatchSchema())
    app.agent(source, name=topics[0], supervisor_strategy=CrashingSupervisor)(agent)


def add_table(app: faust.App, kafka: KafkaSettings, name: str) -> BatchTable:
    """Return a table whose changelog is the topic of that (short) name."""
    changelog = app.topic(kafka.topic(name), schema=BatchSchema(), compacting=True)
    table = app.Table(
        name,
        key_type=bytes,
        value_type=bytes,
        changelog_topic=changelog,
        partitions=kafka.partitions,
    )
    if not isinstance(table, BatchTable):
        raise TypeError("the app makes other tables than BatchTable")
    return table
