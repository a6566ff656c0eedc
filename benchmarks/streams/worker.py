"""A Casewire worker with one agent: the bare job, or the decoder alone.

Arguments: bare, bare-rocksdb or decode, servers, prefix of topics, group, warm, total, folder. Says
"warm" when so many records went through, and commits after the last one.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import faust
import uvloop

from casewire.starting import told_to_stop
from schemas.settings import KafkaSettings
from schemas.topics import MEBIBYTE
from streams.agents import Agent, Wiring, decoder
from streams.app import add_agent, add_table, base_app, run
from streams.batches.batch import Batch
from streams.batches.table import BatchTable
from streams.batches.transport import use_batches
from streams.disk import WorkerDisk
from streams.settings import StreamsSettings

SETTINGS = StreamsSettings()


def bare(table: BatchTable) -> Agent:
    """Return the agent of the bare job: the last value of a key is its state."""

    async def keep(stream: faust.StreamT[bytes]) -> None:
        async for batch in stream.noack():  # type: ignore[attr-defined]
            changes = table.changes(batch)
            for record in batch.records:
                if changes.get(record.key) != record.value:
                    changes.put(record.key, record.value, [])
            await changes.send()
            await batch.done(SETTINGS.batches_ahead)

    return keep


class Counted:
    """A stream that counts what goes through, and has it committed after the last record."""

    def __init__(self, stream: Any, warm: int, total: int) -> None:
        self._stream = stream
        self._warm = warm
        self._total = total

    async def noack(self) -> AsyncIterator[Batch]:
        seen = 0
        async for batch in self._stream.noack():
            before, seen = seen, seen + len(batch.records)
            yield batch
            if before < self._warm <= seen:
                print("warm", flush=True)  # noqa: T201
            if seen == self._total:
                await asyncio.wait(batch.app.consumer.unfinished)
                await batch.app.consumer.commit()


def counted(agent: Agent, warm: int, total: int) -> Agent:
    async def count(stream: faust.StreamT[bytes]) -> None:
        await agent(Counted(stream, warm, total))  # type: ignore[arg-type]

    return count


async def main(arguments: list[str]) -> None:
    job, servers, prefix, group, warm, total, folder = arguments
    kafka = KafkaSettings(bootstrap_servers=servers, topic_prefix=prefix)
    app = base_app(group, kafka, SETTINGS, Path(folder))
    use_batches(app)
    if job == "decode":
        wiring = Wiring(kafka, SETTINGS.batches_ahead, SETTINGS.dead_letter_limit)
        topic, agent = "captured", decoder(wiring)
    else:
        table = add_table(app, kafka, "case-state")
        if job == "bare-rocksdb":
            disk = WorkerDisk(Path(folder) / "disk", SETTINGS.table_cache_mb * MEBIBYTE)
            table.keep_in(disk.stores(table.name))
        topic, agent = "cases", bare(table)
    add_agent(app, kafka, (topic,), counted(agent, int(warm), int(total)))
    await run(app, told_to_stop())


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:]))
