"""`casewire sink` by its command line; and the same worker with a target that takes everything."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import psycopg

from benchmarks.sinks.delivered import delivered, require_written
from benchmarks.sinks.measure import Sample, most_rss_mb, reached, span_of
from benchmarks.sinks.place import Place, database, log_in, running
from benchmarks.sinks.workload import faults, truth
from benchmarks.streams.measure import Spy
from sinks.catalog import NAMES_TABLE, Catalog, Name
from sinks.names import quoted
from tests.end_to_end.system import System

SINK: Final = "bench"
_MOST_SECONDS: Final = 300


async def casewire(place: Place, folder: Path, *, rows: int, spy: Spy | None = None) -> Sample:
    """Measure a sink with so many rows a batch, and compare what it has written with the truth."""
    with database(place.postgres, f"casewire_{rows}") as url:
        system = System(folder, place.topics.kafka, {SINK: {"type": "sql", "url": url}})
        log = log_in(folder)
        system.write_config()
        with system.config_file.open("a", encoding="utf-8") as config:
            config.write(f"\nbatch_rows = {rows}\n")
        command = system.command("sink", SINK)
        sample = await measured(place, command, log, spy)
        found = stored(url, "demo")
    return replace(sample, faults=faults(found, truth(place.total).newest))


async def no_target(place: Place, folder: Path) -> Sample:
    """Measure a worker whose target takes everything at once: what is left is our own work."""
    log = log_in(folder)
    kafka = place.topics.kafka
    arguments = (kafka.bootstrap_servers, kafka.topic_prefix, SINK, str(folder / "data"))
    command = [sys.executable, "-m", "benchmarks.sinks.nothing", *arguments]
    return await measured(place, command, log)


async def measured(
    place: Place,
    command: Sequence[str],
    log: Path,
    spy: Spy | None = None,
    *,
    source: str = "case-state",
) -> Sample:
    """Measure a worker of the group of our sink. Raises RuntimeError if events are missing."""
    topics = place.topics
    group = topics.kafka.group(f"sink-{SINK}")
    await topics.anew([source])
    await topics.rewind(group, source)

    async def progress() -> int:
        return await topics.committed(group, source)

    async with running(command, log) as process, place.watch(process.pid).looking() as watch:
        looked = asyncio.create_task(_look(spy, process.pid, progress, place.warm))
        await reached(progress, place.total, _MOST_SECONDS)
        await looked
        rss = most_rss_mb(process.pid)
    done = await delivered(topics.kafka, SINK)
    require_written(done, place.total)
    span = span_of([(batch.at, batch.events) for batch in done], place.warm)
    taken = watch.per_100k(span)
    return Sample(span.per_second, taken["writer"], taken["postgres"], taken["broker"], rss)


async def _look(
    spy: Spy | None, pid: int, progress: Callable[[], Awaitable[int]], warm: int
) -> None:
    if spy is not None:
        await reached(progress, warm, _MOST_SECONDS)
        await spy.look(pid)


def stored(url: str, schema: str) -> Mapping[str, Mapping[str, str | None]]:
    """Return the properties of all rows by case id."""
    found: dict[str, Mapping[str, str | None]] = {}
    with closing(psycopg.connect(url)) as connection:
        connection.execute(f"SET search_path TO {quoted(schema)}".encode())
        text = f"SELECT table_name, kind, source, name FROM {NAMES_TABLE} ORDER BY number"  # noqa: S608 - our own names
        names = connection.execute(text.encode())
        for table in Catalog.of([Name(*name) for name in names]).tables.values():
            columns = ", ".join(map(quoted, ("cw_case_id", *table.columns.values())))
            text = f"SELECT {columns} FROM {quoted(table.name)}"  # noqa: S608 - our own names
            for case_id, *values in connection.execute(text.encode()):
                found[case_id] = dict(zip(table.columns, values, strict=True))
    return found
