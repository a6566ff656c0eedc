"""What a release writes wherever it stores something, on the same made-up input each time.

`python -m tests.formats.written` writes it to tests/formats/<version>/, once for each release: what
is there already is what that release wrote, and stays as it is.
"""

import asyncio
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

import orjson
import psycopg
from prometheus_client import CollectorRegistry

from casewire.data_dir import open_data_dir
from ingress.records import Event
from ingress.spool import Spool
from ingress.spool_metrics import SpoolMetrics
from schemas.envelope import EventIds
from schemas.topics import MEBIBYTE
from sinks.base import Message, Sink
from sinks.postgres import PostgresSink
from sinks.sqlite import SqliteSink
from streams.dead_letters import dead_letter, rejection_of
from streams.decode import CASE_CHANGES, decode
from streams.delivery import message_of
from streams.disk import WorkerDisk
from streams.fence import version_of
from streams.ledger import Ledger
from streams.past.index import Entry, Index
from streams.records import Out
from streams.state import (
    Judged,
    case_judge,
    change_judge,
    form_judge,
    location_judge,
    user_judge,
)
from streams.stores import Mark, packed
from tests.schemas.captures import HQ, RECEIVED_ON
from tests.servers import PostgresServer, running_postgres
from tests.streams.made import Made, captured

FOLDER: Final = Path(__file__).parent
DATABASE: Final = "formats"
#: HQ's samples of each kind.
SAMPLES: Final = (
    "case_json_current_open.json",
    "case_xml_v2_full.xml",
    "form_json_full.json",
    "form_with_case.xml",
    "form_stub.json",
    "user.json",
    "location.json",
    "datasource.json",
    "app_structure_body.txt",
)
BROKEN: Final = b'{"case_id": '
_BEGUN_NS: Final = 1_795_000_000_000_000_000
_JUDGES: Final[Mapping[str, Callable[..., Judged]]] = {
    "cases": case_judge(writer="w", window_microseconds=10_000_000),
    "case-changes": change_judge(writer="w", window_microseconds=10_000_000),
    "forms": form_judge(writer="w"),
    "users": user_judge(writer="w"),
    "locations": location_judge(writer="w"),
}
STATES: Final[Mapping[str, str]] = {
    "cases": "case-state",
    "case-changes": "case-state",
    "forms": "form-state",
    "users": "user-state",
    "locations": "location-state",
}


def all_captured() -> Sequence[Made]:
    """Return a captured event of each kind, and one that is none; the same in each run."""
    ids = EventIds(clock=lambda: _BEGUN_NS, entropy=bytes)
    times = [("received-on", RECEIVED_ON.encode()), ("server-modified-on", RECEIVED_ON.encode())]
    bodies = [(HQ / name).read_bytes() for name in SAMPLES]
    return [
        captured(
            body,
            offset=offset,
            headers=[*times, ("content-type", b"text/xml" if body[:1] == b"<" else b"text/json")],
            ids=ids,
        )
        for offset, body in enumerate([*bodies, BROKEN])
    ]


def records() -> Iterator[Made]:
    """Yield what follows on the topics, in order."""
    held: dict[tuple[str, bytes], bytes | None] = {}
    for event in all_captured():
        yield event
        try:
            decoded = decode(event)
        except Exception as error:  # noqa: BLE001 - as the agent does
            failed = rejection_of(error)
            yield _made("dead-letters", dead_letter(event, "decode", failed, failed_at=RECEIVED_ON))
            continue
        for topic, out in (
            (decoded.topic, decoded.out),
            *((CASE_CHANGES.topic, change) for change in decoded.changes),
        ):
            record = _made(topic, out)
            yield record
            if topic in _JUDGES:
                yield from _judged(topic, record, held)


def _judged(
    topic: str, record: Made, held: dict[tuple[str, bytes], bytes | None]
) -> Iterator[Made]:
    key, kind = record.key or b"", STATES[topic]
    folds = (held.get(("case-folds", key)),) if kind == "case-state" else ()
    judged = _JUDGES[topic](record, held.get((kind, key)), *folds)
    for name, out in ((kind, judged.publish), ("case-folds", judged.fold)):
        if out is not None:
            held[name, key] = out.value
            yield _made(name, out)
    ledger = Ledger("state", written="applied")
    ledger.add(record, "stale")
    for out in ledger.records():
        yield _made("deliveries", out)


def _made(topic: str, out: Out) -> Made:
    return Made(out.value, out.key, list(out.headers), f"casewire.{topic}")


def messages() -> Sequence[Message]:
    """Return the latest states as sinks take them."""
    taken = [message_of(record) for record in records() if _is_for_sinks(record)]
    latest = {(each.source, each.key): each for each in taken if isinstance(each, Message)}
    return list(latest.values())


def _is_for_sinks(record: Made) -> bool:
    return record.topic in ("casewire.case-state", "casewire.form-state")


def as_line(record: Made) -> bytes:
    """Return a record as a line of JSON, bytes in base64."""
    return orjson.dumps(
        {
            "topic": record.topic,
            "key": b64encode(record.key or b"").decode(),
            "value": None if record.value is None else b64encode(record.value).decode(),
            "headers": [(name, b64encode(value).decode()) for name, value in record.headers],
        }
    )


async def spooled(directory: Path) -> None:
    spool = Spool(directory, MEBIBYTE, SpoolMetrics(CollectorRegistry()))
    for event in all_captured():
        await spool.append(Event((event.key or b"").decode(), event.headers, event.value or b""))
    await spool.close()


def stored(folder: Path) -> None:
    """Write case states to a table on disk, as if they were one partition's."""
    states = [record for record in records() if record.topic == "casewire.case-state"]
    stores = WorkerDisk(folder, MEBIBYTE).stores("case-state")
    changes = {
        record.key or b"": packed(version_of(record.headers), record.value or b"")
        for record in states
    }
    last = states[-1]
    mark = Mark.at(len(states) - 1, last.key or b"", last.value, _BEGUN_NS // 1_000_000)
    stores.open(0).write(changes, mark)
    stores.close()


async def _all_to(sink: Sink) -> None:
    await sink.open()
    await sink.write(messages())
    await sink.close()


def dump(server: PostgresServer) -> str:
    """Return the statements that make a sink's schema with its rows."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {DATABASE}")
    asyncio.run(_all_to(PostgresSink(server.url(DATABASE))))
    command = ["pg_dump", "--inserts", "--no-owner", "--dbname", server.url(DATABASE)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(("\\", "--")))


def write(folder: Path) -> None:
    """Write everything into a folder that is not there yet."""
    folder.mkdir()
    open_data_dir(folder / "data")
    asyncio.run(spooled(folder / "data" / "spool"))
    stored(folder / "data" / "tables" / "casewire-streams")
    index = Index(folder / "data" / "tables" / "casewire-streams" / "past" / "0.db")
    index.add([(b"demo/c1", Entry(1, 0, 0))], {0: 1})
    index.close()
    asyncio.run(_all_to(SqliteSink(folder / "data" / "sqlite")))
    lines = [as_line(record) for record in records()]
    (folder / "topics.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    with running_postgres() as server:
        (folder / "postgres.sql").write_text(dump(server), encoding="utf-8")
    for name in ("lock", "LOCK", "LOG", "LOG.old*"):
        for file in folder.rglob(name):
            file.unlink()


if __name__ == "__main__":
    write(FOLDER / metadata.version("casewire"))
