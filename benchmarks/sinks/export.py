"""commcare-export, which asks HQ for its cases; HQ is a stand-in in this process."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson
import psycopg
from aiohttp import web

from benchmarks.sinks.measure import Sample, Span, most_rss_mb
from benchmarks.sinks.place import Place, database, end_of, log_in, running, table_rows
from benchmarks.sinks.workload import COLUMNS, faults
from schemas.case import CaseState
from sinks.names import quoted
from tests.servers import free_port

_TABLE: Final = "cases"
_PAGE: Final = 1000
#: By which of these it asks for what comes next depends on its version and its settings.
_SINCE: Final = ("indexed_on_start", "server_date_modified_start")


@dataclass(slots=True)
class Hq:
    """HQ's list of cases (protocol.md §6, Case v1), in the order of their times."""

    times: Sequence[str]
    objects: Sequence[bytes]
    first_asked: float = field(default=0.0)

    @classmethod
    def of(cls, cases: Sequence[CaseState]) -> "Hq":
        ordered = sorted(cases, key=lambda case: case.server_date_modified or "")
        times = [case.server_date_modified or "" for case in ordered]
        return cls(times, [_object(case) for case in ordered])

    async def cases(self, request: web.Request) -> web.Response:
        self.first_asked = self.first_asked or time.time()
        since = next((request.query[name] for name in _SINCE if name in request.query), "")
        start = bisect_left(self.times, since[:26])
        limit = int(request.query["limit"])
        page = self.objects[start : start + limit]
        meta = {
            "limit": limit,
            "next": "?more" if start + limit < len(self.objects) else None,
            "offset": 0,
            "previous": None,
            "total_count": len(self.objects) - start,
        }
        body = b'{"meta":%b,"objects":[%b]}' % (orjson.dumps(meta), b",".join(page))
        return web.Response(body=body, content_type="application/json")


def _object(case: CaseState) -> bytes:
    value = orjson.loads(case.to_json())
    return orjson.dumps(
        {**value, "id": case.case_id, "indexed_on": case.server_date_modified, "resource_uri": ""}
    )


def table_text() -> str:
    """Return the table as it would make it; it fails when a column comes up in a later page."""
    columns = ", ".join(f"{quoted(name)} text" for name in COLUMNS)
    return f"CREATE TABLE {_TABLE} (id text PRIMARY KEY, {columns})"


def query() -> Any:
    """Return a query for all columns, as commcare-export reads it from JSON."""
    columns = ["case_id", *(f"properties.{name}" for name in COLUMNS)]
    api_data = _call("api_data", {"Lit": "case"}, {"Ref": "checkpoint_manager"}, {"Lit": {}})
    emit = {
        "table": _TABLE,
        "headings": [{"Lit": name} for name in ("id", *COLUMNS)],
        "source": {
            "Map": {
                "name": None,
                "source": api_data,
                "body": {"List": [{"Ref": name} for name in columns]},
            }
        },
        "missing_value": None,
    }
    manager = _call("get_checkpoint_manager", {"Lit": "case"}, {"Lit": [_TABLE]})
    return {
        "Bind": {"name": "checkpoint_manager", "value": manager, "body": {"Emit": emit}},
    }


def _call(name: str, *arguments: Any) -> Any:
    return {"Apply": {"fn": {"Ref": name}, "args": list(arguments)}}


@dataclass(frozen=True, slots=True)
class Export:
    """A first load of `cases` by the program `command`."""

    command: Path
    cases: Sequence[CaseState]

    async def measure(self, place: Place, folder: Path) -> Sample:
        """Measure from its first request: the start of Python does not count."""
        log = log_in(folder)
        hq = Hq.of(self.cases)
        with database(place.postgres, "commcare_export") as url:
            with psycopg.connect(url) as connection:
                connection.execute(table_text().encode())
            async with _serving(hq) as address:
                sample = await self._measured(place, log, (address, url), hq)
            found = table_rows(url, _TABLE, "id")
        return replace(sample, faults=faults(found, {case.case_id: case for case in self.cases}))

    async def _measured(self, place: Place, log: Path, between: tuple[str, str], hq: Hq) -> Sample:
        address, url = between
        file = log.parent / "query.json"
        file.write_bytes(orjson.dumps(query()))
        command = [
            str(self.command),
            "--commcare-hq", address, "--project", "demo", "--username", "u", "--password", "k",
            "--auth-mode", "apikey", "--query", str(file), "--output-format", "sql", "--output",
            url.replace("postgresql://", "postgresql+psycopg2://"), "--batch-size", str(_PAGE),
            "--no-logfile",
        ]  # fmt: skip
        rss = 0.0
        async with running(command, log) as process, place.watch(process.pid).looking() as watch:
            waiting = asyncio.ensure_future(process.wait())
            while not waiting.done():
                rss = max(rss, _rss(process.pid))
                await asyncio.wait([waiting], timeout=0.2)
        if process.returncode:
            raise RuntimeError(f"it ended:\n{end_of(log)}")
        span = Span(hq.first_asked, time.time(), len(self.cases))
        taken = watch.per_100k(span)
        return Sample(span.per_second, taken["writer"], taken["postgres"], taken["broker"], rss)


def _rss(pid: int) -> float:
    try:
        return most_rss_mb(pid)
    except (ValueError, FileNotFoundError):
        return 0.0


@asynccontextmanager
async def _serving(hq: Hq) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/a/demo/api/{version}/case/", hq.cases)
    app.router.add_get("/a/demo/api/case/{version}/", hq.cases)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
