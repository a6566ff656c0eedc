"""The serial bound: read, decode, then plain COPY of the same batches, and nothing else.

Nothing is guarded, told or made: the table is there, and a value with a tab in it would be wrong.
Arguments: servers, topic, total, rows a batch, a database's URL, or nothing to only read and
decode. Prints when a third of the events was done, when the last was, how many lay between, and
the most memory.
"""

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
import psycopg
import uvloop
from aiokafka import AIOKafkaConsumer

from benchmarks.sinks.measure import Span, most_rss_mb
from benchmarks.sinks.workload import COLUMNS
from sinks.names import quoted
from streams.app import FETCH_BYTES, spare_the_collector

_OWN: Final = (
    "domain", "case_id", "closed", "date_closed", "date_modified", "server_date_modified",
    "user_id", "version", "deleted", "doubtful", "source",
)  # fmt: skip
#: The key: a case comes once a batch.
_BATCH: Final = "batch"
_TABLE: Final = "plain"


def table_text() -> str:
    names = ", ".join(f"{quoted(name)} text" for name in (_BATCH, *_OWN, "indices", *COLUMNS))
    return f"CREATE TABLE {_TABLE} ({names}, PRIMARY KEY (domain, case_id, {_BATCH}))"


def lines(batch: int, records: Sequence[Any]) -> Iterable[str]:
    """Yield the newest state of each case of a batch as COPY reads it, in the order of the ids."""
    newest: dict[bytes, Mapping[str, Any]] = {}
    for record in records:
        state = orjson.loads(record.value)
        held = newest.get(record.key)
        if held is None or state["version"] >= held["version"]:
            newest[record.key] = state
    for _, state in sorted(newest.items()):
        own, properties = map(state.get, _OWN), map(state["properties"].get, COLUMNS)
        indices = orjson.dumps(state["indices"]).decode()
        cells = (batch, *own, indices, *properties)
        yield "\t".join([r"\N" if cell is None else str(cell) for cell in cells])


async def main(servers: str, topic: str, total: int, rows: int, url: str) -> Span:
    connection = await psycopg.AsyncConnection.connect(url) if url else None
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    began, before, done = 0.0, 0, 0
    spare_the_collector()
    async with consumer:
        while done < total:
            records: list[Any] = []
            while len(records) < min(rows, total - done):
                found = await consumer.getmany(timeout_ms=50, max_records=rows - len(records))
                records += [record for some in found.values() for record in some]
            block = "\n".join(lines(done, records)).encode()
            if connection is not None:
                async with connection.cursor().copy(f"COPY {_TABLE} FROM STDIN".encode()) as copy:
                    await copy.write(block)
                await connection.commit()
            done += len(records)
            if not began and done >= total // 3:
                began, before = time.time(), done
    if connection is not None:
        await connection.close()
    return Span(began, time.time(), total - before)


if __name__ == "__main__":
    servers, topic, total, rows, *url = sys.argv[1:]
    span = uvloop.run(main(servers, topic, int(total), int(rows), "".join(url)))
    rss = most_rss_mb(os.getpid())
    print(span.began, span.ended, span.events, rss)  # noqa: T201 - its parent reads it
