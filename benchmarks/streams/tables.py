"""Memory and recovery of the latest states, in memory and on disk.

`python -m benchmarks.streams.tables` fills `case-state` with a million states of 1 KB, as a worker
publishes them, and then starts workers one after the other: tables in memory; tables on disk, from
the topic; the same from disk after a clean stop, and after `kill -9`. Each is a process of its own
that prints a line and is killed. Recovery counts from the assignment of the partitions until the
worker is ready. On a busy machine compare CPU seconds.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import orjson
from aiokafka import AIOKafkaProducer

from benchmarks.machine import (
    cpu_seconds,
    described,
    folder_bytes,
    log_bytes,
    publish,
    rss_mb,
    taken_by_others,
)
from casewire.logs import set_up_logs
from schemas.case import CaseState
from schemas.envelope import Address, EventIds, captured_headers, derived_headers
from schemas.partitioner import partition_of
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS
from streams.app import create_streams_app, recovered
from streams.settings import StreamsSettings
from tests.kafka_tools import create_topics
from tests.servers import running_kafka

STATE_BYTES: Final = 1024
PARTITIONS: Final = 8
POLL_SECONDS: Final = 0.01
RESULTS: Final = Path(__file__).parents[1] / "results" / "tables.md"


def state_of(number: int) -> CaseState:
    properties = {"case_type": "patient", "case_name": f"Synthetic {number}"}
    state = CaseState(
        domain="bench",
        case_id=f"{number:032x}",
        user_id="u1",
        closed=False,
        xform_ids=["f1", "f2"],
        date_closed=None,
        date_modified="2026-11-01T10:00:00.000000Z",
        server_date_modified="2026-11-01T10:00:00.000000Z",
        properties=properties,
        indices={},
        attachments={},
        source="snapshot",
        version=1_795_000_000_000_000 + number,
        captured_id="019abcde-0000-7000-8000-000000000000",
        deleted=False,
        doubtful=False,
    )
    missing = STATE_BYTES - len(state.to_json()) - len(',"note":""')
    # Half of it repeats, as field names and choices do.
    properties["note"] = os.urandom(missing // 4).hex() + "x" * (missing - 2 * (missing // 4))
    return state


async def fill(kafka: KafkaSettings, states: int) -> None:
    """Publish states as a worker does: by record batches, with the headers of the contract."""
    ids = EventIds()
    address = Address(domain="bench", label="", method="POST", path="/api/v1/in/bench", query="")
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        compression_type="zstd",
        max_batch_size=1_000_000,
        acks="all",
    ) as producer:
        batches = {number: producer.create_batch() for number in range(PARTITIONS)}
        for number in range(states):
            state = state_of(number)
            event_id, received = ids.next()
            headers = [("casewire-version", str(state.version).encode())]
            headers += derived_headers(
                captured_headers(event_id, received, address, [("user-agent", b"bench")]),
                event_id=f"{event_id}/state/0",
                captured_id=event_id,
                event_type="org.commcare.case.state",
                subject=state.case_id,
                schema="case-state/1",
            )
            headers.append(("casewire-writer", b"bench/1/00000000"))
            key = f"bench/{state.case_id}".encode()
            partition = partition_of(key, PARTITIONS)
            record = {"timestamp": None, "key": key, "value": state.to_json(), "headers": headers}
            if batches[partition].append(**record) is None:
                await send(producer, kafka, partition, batches[partition])
                batches[partition] = producer.create_batch()
                batches[partition].append(**record)
        for partition, batch in batches.items():
            await send(producer, kafka, partition, batch)


async def send(producer: Any, kafka: KafkaSettings, partition: int, batch: Any) -> None:
    sent = await producer.send_batch(batch, kafka.topic("case-state"), partition=partition)
    await sent


async def recover(kafka: KafkaSettings, tables: str, folder: Path, *, stop: bool) -> None:
    """Start a worker, print what its recovery took, and wait to be killed, or stop it."""
    settings = StreamsSettings(tables="rocksdb" if tables == "rocksdb" else "memory")
    app = create_streams_app(kafka, settings, folder)
    starting = asyncio.create_task(app.start())
    while not app.rebalancing_count:  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(POLL_SECONDS)
    begun, cpu = time.perf_counter(), time.process_time()
    while not recovered(app):  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)
    figures = {
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - cpu,
        "rss_mb": rss_mb(os.getpid()),
        "cpu_in_all": cpu_seconds(os.getpid()),
    }
    sys.stdout.buffer.write(orjson.dumps(figures) + b"\n")
    sys.stdout.flush()
    await starting
    if stop:
        await app.stop()
    else:
        await asyncio.Event().wait()


def started(
    kafka: KafkaSettings, tables: str, folder: Path, *, stop: bool = False
) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, "--worker", tables, "--folder", str(folder)]
    command += ["--kafka", kafka.bootstrap_servers, *(["--stop"] if stop else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        figures: dict[str, float] = orjson.loads(
            process.stdout.readline() if process.stdout else b""
        )
        if not stop:
            process.kill()
    return figures


@click.command()
@click.option("--states", default=1_000_000, show_default=True)
@click.option("--out", default=RESULTS, type=click.Path(path_type=Path), show_default=True)
@click.option("--worker", type=click.Choice(["memory", "rocksdb"]), hidden=True)
@click.option("--kafka", "servers", default="", hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
@click.option("--stop", is_flag=True, hidden=True)
def main(states: int, out: Path, **of_worker: Any) -> None:
    """Measure memory and recovery of STATES states, in memory and on disk.

    Example: python -m benchmarks.streams.tables --states 100000
    """
    if of_worker["worker"]:
        set_up_logs("streams")
        kafka = KafkaSettings(bootstrap_servers=of_worker["servers"], partitions=PARTITIONS)
        work = recover(kafka, of_worker["worker"], of_worker["folder"], stop=of_worker["stop"])
        asyncio.run(work)
        return
    before = taken_by_others()
    with (
        tempfile.TemporaryDirectory() as made,
        running_kafka(Path(made) / "kafka") as broker,
    ):
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, partitions=PARTITIONS)
        asyncio.run(create_topics(kafka.bootstrap_servers, kafka.topic_prefix, TOPICS, PARTITIONS))
        asyncio.run(fill(kafka, states))
        lines = list(_lines(kafka, states, Path(made), broker.broker.data_dir))
    publish(lines, (before, taken_by_others()), out)


def _lines(kafka: KafkaSettings, states: int, folder: Path, log: Path) -> Iterator[str]:
    yield "# Tables of the latest states, measured"
    yield ""
    yield "Made by `python -m benchmarks.streams.tables`; docs/benchmarks.md says how to read it."
    yield ""
    yield from described(("faust-streaming", "aiokafka", "rocksdict"))
    yield f"- {states:,} states of {STATE_BYTES:,} bytes and their headers, {PARTITIONS} partitions"
    topic = log_bytes(log, kafka.topic("case-state")) / states
    yield f"- on the broker's disk: {topic:,.0f} bytes a state"
    yield ""
    yield "| tables | recovery s | its CPU s | CPU s in all | RSS MB | bytes a state on disk |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name, tables, stop_it in (
        ("in memory, from the topic", "memory", False),
        ("on disk, from the topic", "rocksdb", True),
        ("on disk, after a clean stop", "rocksdb", False),
        ("on disk, after kill -9", "rocksdb", False),
    ):
        found = started(kafka, tables, folder / tables, stop=stop_it)
        on_disk = folder_bytes(folder / tables) / states
        yield (
            f"| {name} | {found['seconds']:.1f} | {found['cpu']:.1f} "
            f"| {found['cpu_in_all']:.1f} | {found['rss_mb']:.0f} | {on_disk:,.0f} |"
        )


if __name__ == "__main__":
    main()
