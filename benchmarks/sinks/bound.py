"""Runs the serial bound (plain.py) in a process of its own."""

import asyncio
import sys
from pathlib import Path

import psycopg

from benchmarks.sinks import plain
from benchmarks.sinks.measure import Sample, Span
from benchmarks.sinks.place import Place, database


async def copied(place: Place, folder: Path, *, rows: int) -> Sample:
    """Measure the bound. Raises RuntimeError if a case is missing from the table."""
    with database(place.postgres, f"plain_{rows}") as url:
        with psycopg.connect(url) as connection:
            connection.execute(plain.table_text().encode())
        return await _measured(place, rows, url)


async def read(place: Place, folder: Path) -> Sample:
    """Measure reading and decoding alone."""
    return await _measured(place, 2000)


async def _measured(place: Place, rows: int, *url: str) -> Sample:
    kafka = place.topics.kafka
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", plain.__name__, kafka.bootstrap_servers, kafka.topic("case-state"),
        str(place.total), str(rows), *url, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    watch = place.watch(process.pid)
    async with watch.looking():
        output, _ = await process.communicate()
    began, ended, events, rss = output.split()
    span = Span(float(began), float(ended), int(events))
    taken = watch.per_100k(span)
    return Sample(span.per_second, taken["writer"], taken["postgres"], taken["broker"], float(rss))
