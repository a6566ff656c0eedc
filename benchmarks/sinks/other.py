"""The connectors that are no database: requests to an HTTP target, rows to Parquet files."""

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

import aiohttp
import orjson

from benchmarks.sinks.measure import Sample
from benchmarks.sinks.ours import SINK, measured
from benchmarks.sinks.place import Place, log_in, running
from benchmarks.sinks.workload import Event, event_records, events
from schemas.errors import Rejection
from sinks.base import Message
from sinks.files_rows import FORMATS
from sinks.files_store import Folder
from streams.app import spare_the_collector
from streams.delivery import message_of
from tests.end_to_end.system import System
from tests.servers import free_port
from tests.streams.made import Made

#: Rows of a file when it is complete (contract §8).
FILE_ROWS: Final = 10_000
_FILES: Final = 9
_START_SECONDS: Final = 10


async def http(place: Place, folder: Path) -> Sample:
    """Measure requests a second. Raises RuntimeError unless each case's come in its order."""
    log = log_in(folder)
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    system = System(folder, place.topics.kafka, {SINK: {"type": "http", "url": url}})
    system.write_config()
    receiver = [sys.executable, "-m", "benchmarks.sinks.receiver", str(port)]
    async with running(receiver, folder / "receiver"):
        await _received(url)
        sample = await measured(place, system.command("sink", SINK), log)
        bodies = await _received(url)
    _require_order(bodies, events(place.total))
    return replace(sample, per_second=sample.per_second * len(bodies) / place.total)


async def parquet(place: Place, folder: Path) -> Sample:
    """Measure a sink of files, from the topic to complete files: each is made anew as it grows."""
    log = log_in(folder)
    target = {"type": "files", "url": str(folder / "lake"), "batch_seconds": 1}
    system = System(folder, place.topics.kafka, {SINK: target})
    system.write_config()
    return await measured(place, system.command("sink", SINK), log, source="cases")


def writer_per_second(folder: Path) -> float:
    """Return the rows a second from decoded events to a complete file on the disk (median).

    The garbage collector is told what workers tell it, for the rest of the process.
    """
    messages = list(_messages(FILE_ROWS))
    store = Folder(folder)
    store.check()
    form = FORMATS["parquet"]
    taken = []
    spare_the_collector()
    for number in range(_FILES):
        began = time.perf_counter()
        rows = [form.row(message) for message in messages]
        store.write(f"{number}.parquet", form.merged(None, rows) or b"")
        taken.append(time.perf_counter() - began)
    return FILE_ROWS / median(taken)


def _messages(count: int) -> Iterator[Message]:
    for offset, out in enumerate(event_records(count)):
        topic = "casewire.cases"
        message = message_of(Made(out.value, out.key, out.headers, topic, offset=offset))
        if isinstance(message, Rejection):
            raise TypeError(message.explanation)
        yield message


async def _received(url: str) -> Sequence[bytes]:
    """Return what the receiver got; wait until it is there."""
    async with asyncio.timeout(_START_SECONDS), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as answer:
                    return (await answer.read()).splitlines()
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.05)


def _require_order(bodies: Sequence[bytes], sent: Iterable[Event]) -> None:
    """Raise RuntimeError unless of each case came some of its states, as they were sent."""
    states: defaultdict[str, list[str]] = defaultdict(list)
    for event in sent:
        states[event.case.case_id].append(event.case.properties["last_change"])
    left = {case_id: iter(steps) for case_id, steps in states.items()}
    came = set()
    for body in bodies:
        case = orjson.loads(body)
        came.add(case["case_id"])
        if case["properties"]["last_change"] not in left[case["case_id"]]:
            raise RuntimeError("a case's states came in another order than they were sent")
    if came != states.keys():
        raise RuntimeError(f"of {len(states)} cases {len(came)} came")
