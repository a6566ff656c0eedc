"""Debezium's JDBC sink on Kafka Connect, as its documentation has it set up for upserts.

Without `quote.identifiers` a property named `order` ends the task; without the reduction buffer
two versions of a case in a batch do, once the driver writes batches as single statements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.sinks.measure import Sample, most_rss_mb, reached
from benchmarks.sinks.place import Place, database, end_of, log_in, running, table_rows
from benchmarks.sinks.workload import faults, truth
from casewire.broker import LIBS
from tests.servers import free_port

TOPIC: Final = "connect"
_TABLE: Final = "cases"
#: What Connect says when a task has ended, which it stays until somebody starts it again.
_TASK_DEAD: Final = "Task is being killed"
_STANDALONE: Final = "org.apache.kafka.connect.cli.ConnectStandalone"
_MOST_SECONDS: Final = 300
#: How often what is done is told; Connect's own default is a minute.
_FLUSH_MS: Final = 250
_HEAP: Final = "-Xmx1g"


@dataclass(frozen=True, slots=True)
class Debezium:
    """`plugins` is Connect's folder of plug-ins; its topic has one of `each` of the events."""

    plugins: Path
    each: int

    async def measure(self, place: Place, folder: Path) -> Sample:
        """Measure from when a third of the events was written: its start does not count."""
        log = log_in(folder)
        with database(place.postgres, "debezium") as url:
            address = url.replace("postgresql://", "").partition("@")[2]
            jdbc = f"jdbc:postgresql://{address}?reWriteBatchedInserts=true"
            files = (
                _properties(folder / "worker.properties", self._worker(place, folder)),
                _properties(folder / "sink.properties", self._sink(place, folder.name, jdbc)),
            )
            command = ["java", _HEAP, "-cp", f"{LIBS}/*", _STANDALONE, *map(str, files)]
            sample = await self._measured(place, command, log)
            found = table_rows(url, _TABLE, "case_id")
        return replace(sample, faults=faults(found, truth(place.total, self.each).newest))

    async def _measured(self, place: Place, command: Sequence[str], log: Path) -> Sample:
        async def progress() -> int:
            said = end_of(log)
            if process.returncode is not None or _TASK_DEAD in said:
                raise RuntimeError(f"it ended:\n{said}")
            return await place.topics.committed(f"connect-{log.parent.name}", TOPIC)

        async with running(command, log) as process, place.watch(process.pid).looking() as watch:
            span = await reached(progress, -(-place.total // self.each), _MOST_SECONDS)
            rss = most_rss_mb(process.pid)
        taken = watch.per_100k(span)
        return Sample(span.per_second, taken["writer"], taken["postgres"], taken["broker"], rss)

    def _worker(self, place: Place, folder: Path) -> Mapping[str, object]:
        converter = "org.apache.kafka.connect.json.JsonConverter"
        return {
            "bootstrap.servers": place.topics.kafka.bootstrap_servers,
            "key.converter": converter,
            "value.converter": converter,
            "offset.storage.file.filename": folder / "offsets",
            "offset.flush.interval.ms": _FLUSH_MS,
            "plugin.path": self.plugins,
            "listeners": f"http://127.0.0.1:{free_port()}",
        }

    def _sink(self, place: Place, name: str, jdbc: str) -> Mapping[str, object]:
        return {
            "name": name,
            "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
            "tasks.max": 1,
            "topics": place.topics.kafka.topic(TOPIC),
            "connection.url": jdbc,
            "connection.username": place.postgres.user,
            "connection.password": "",
            "insert.mode": "upsert",
            "delete.enabled": "true",
            "primary.key.mode": "record_key",
            "schema.evolution": "basic",
            "collection.name.format": _TABLE,
            "quote.identifiers": "true",
            "batch.size": 2000,
            "use.reduction.buffer": "true",
            "consumer.override.max.poll.records": 2000,
            "consumer.override.auto.offset.reset": "earliest",
        }


def _properties(file: Path, keys: Mapping[str, object]) -> Path:
    file.write_text("".join(f"{key}={value}\n" for key, value in keys.items()), encoding="utf-8")
    return file
