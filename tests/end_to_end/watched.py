"""Everything at once, fed with one person's name and number in all that a sender can write."""

import asyncio
import contextlib
import itertools
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import anyio
import orjson
import psycopg
from aiohttp import web

from casewire.health import running
from schemas.dead_letter import DeadLetter
from schemas.settings import KafkaSettings
from sinks.base import Source
from sinks.files_settings import FilesSettings
from sinks.sql_settings import SqlSettings
from tests.alerts.conftest import Mailbox, running_mail
from tests.end_to_end.collector import Collector
from tests.end_to_end.system import System, create
from tests.kafka_tools import create_topics
from tests.servers import KafkaServer, PostgresServer, free_port
from tests.sinks.http_target import Received, Target

DATABASE = "watched"
FIRST, LAST, PHONE = "Zipporah", "Quillfeather", "256772555019"
SEED = f"{FIRST} {LAST} +{PHONE}"
#: What of it is searched for, in lower case.
TRACES = (FIRST.lower(), LAST.lower(), PHONE)
REQUEST_ID = "4a0c2f6e-7b1d-4c57-9a53-0f5dd4b60a11"
REFUSED_BY_HTTP, REFUSED_BY_SQL, ALARMING = "refused-by-http", "refused-by-sql", "alarming"
NUMBERS = itertools.count()


@dataclass
class Watched(System):
    """All roles, with a sink of each type, a mailbox, a collector of traces, and a target that is
    not always content.
    """

    mailbox: Mailbox = field(default_factory=lambda: Mailbox(free_port()))
    target: Target = field(default_factory=Target)
    collector: Collector = field(default_factory=Collector)
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def roles(self) -> Sequence[str]:
        return (*super().roles, "alerts run", "console")

    @property
    def sources(self) -> Mapping[str, Sequence[Source]]:
        files = FilesSettings().sources
        return {name: files if name == "lake" else SqlSettings().sources for name in self.sinks}

    def lines(self, role: str) -> Sequence[bytes]:
        return self.log(role).read_bytes().splitlines()

    async def letters(self) -> Sequence[DeadLetter]:
        return [DeadLetter.from_json(value) for value in await self.values("dead-letters")]


def case(case_id: str, **changes: object) -> bytes:
    """Return a case as HQ's JSON gives it, with a name and a number among its properties."""
    body = {
        "domain": "demo",
        "case_id": case_id,
        "user_id": SEED,
        "closed": False,
        "xform_ids": [SEED],
        "date_closed": None,
        "date_modified": "2026-01-01T00:00:00.000000Z",
        "server_date_modified": f"2026-01-01T00:00:{next(NUMBERS):02d}.000000Z",
        "properties": {"case_type": "patient", "case_name": SEED, "phone": PHONE, "kind": case_id},
        "indices": {},
        "attachments": {SEED: {"url": f"https://hq.example.org/{SEED}"}},
    }
    return orjson.dumps(body | changes)


def form(form_id: str) -> bytes:
    answers = {"@xmlns": "http://example.org/visit", "name": SEED, "phones": [PHONE, PHONE]}
    meta = {"username": SEED, "timeEnd": SEED, "instanceID": form_id}
    return orjson.dumps({"id": form_id, "domain": "demo", "form": answers, "metadata": meta})


CASE_XML = f"""<case case_id="x1" date_modified="2026-01-01T00:00:00.000000Z" user_id="{SEED}"
 xmlns="http://commcarehq.org/case/transaction/v2"><create><case_type>patient</case_type>
 <case_name>{SEED}</case_name><owner_id>{SEED}</owner_id></create><update><phone>{PHONE}</phone>
 </update></case>"""

#: Bodies by what is to become of them.
BODIES: Mapping[str, bytes] = {
    "good": case("good"),
    "form": form("f1"),
    "xml": CASE_XML.encode(),
    "malformed_json": b'{"case_id": "b1", "case_name": "%s' % SEED.encode(),
    "malformed_xml": CASE_XML.replace("</case>", "").encode(),
    "entities": f'<!DOCTYPE a [<!ENTITY n "{SEED}">]>{CASE_XML}'.encode(),
    "unknown_kind": orjson.dumps({SEED: SEED}),
    "missing_id": case("", properties={}),
    "invalid_time": case("b2", server_date_modified=SEED),
    "invalid_type": case("b3", properties=SEED),
    "not UTF-8": b"\xff" + SEED.encode(),
    REFUSED_BY_HTTP: case(REFUSED_BY_HTTP),
    REFUSED_BY_SQL: case(REFUSED_BY_SQL),
}


def headers(number: int) -> Mapping[str, str]:
    """Return a request's headers; every other one has a request id that looks like one."""
    return {
        "content-type": f"application/json; name={FIRST}",
        "user-agent": SEED,
        "received-on": SEED if number % 3 == 0 else "2026-01-01T00:00:00.000000Z",
        "server-modified-on": SEED if number % 3 == 0 else "2026-01-01T00:00:00.000000Z",
        "x-request-id": SEED if number % 2 else REQUEST_ID,
        "x-worker": SEED,
        "traceparent": SEED,
        "authorization": f"Basic {b64encode(f'{SEED}:{SEED}'.encode()).decode()}",
        "cookie": f"who={SEED}",
        "x-forwarded-for": SEED,
    }


async def post(url: str, body: bytes, sent: Mapping[str, str]) -> tuple[int, bytes]:
    query = {"app_id": SEED, "name": SEED, "phone": PHONE}
    async with (
        aiohttp.ClientSession() as client,
        client.post(url, data=body, headers=sent, params=query) as answer,
    ):
        return answer.status, await answer.read()


async def feed(system: Watched) -> None:
    """Send everything that can be sent, good and bad."""
    for number, (name, body) in enumerate(BODIES.items()):
        status, answer = await post(system.address("demo"), body, headers(number))
        assert status == 200, answer
        system.ids[name] = orjson.loads(answer)["id"]
    assert (await post(system.address("locked"), BODIES["good"], headers(0)))[0] == 401
    assert (await post(system.address("unknown"), BODIES["good"], headers(0)))[0] == 503
    assert (await post(system.address("demo/a/b"), BODIES["good"], headers(0)))[0] == 503
    token = system.address("").replace("/in/", "/token")
    login = {"grant_type": "password", "username": SEED, "password": SEED}
    async with aiohttp.ClientSession() as client, client.post(token, data=login) as said:
        assert said.status in (400, 401, 503)
    reader, writer = await asyncio.open_connection("127.0.0.1", system.port)
    writer.write(f"POST {SEED}\r\n{SEED}\r\n\r\n".encode())
    assert b" 400 " in await reader.readline()
    writer.close()


async def discontent(received: Received) -> web.StreamResponse:
    """Answer as a target that repeats what it refuses, and is away for once at the first time."""
    if REFUSED_BY_HTTP.encode() in received.body:
        return web.Response(status=422, text=f"refused: {received.body.decode()}")
    if not first_time:
        return web.json_response({})
    first_time.clear()
    return web.Response(status=503, text=f"later: {received.body.decode()}")


first_time = {"yes"}


async def until(come: Callable[[], Awaitable[object]]) -> None:
    with anyio.fail_after(90):
        while not await come():  # noqa: ASYNC110 - what is awaited sets no event
            await anyio.sleep(0.1)


async def metrics_of_all(system: System) -> str:
    """Return what all processes tell at `/metrics`."""
    texts = []
    async with aiohttp.ClientSession() as client:
        for process in running(system.folder / "data" / "run"):
            async with client.get(f"http://{process.address}/metrics") as answer:
                texts.append(await answer.text())
    return "\n".join(texts)


@contextlib.asynccontextmanager
async def running_watched(
    kafka: KafkaServer, postgres: PostgresServer, folder: Path, env: Mapping[str, str]
) -> AsyncIterator[Watched]:
    """Start everything, wait until all are ready; stop it in the end."""
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix="watched.", partitions=1
    )
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {DATABASE}")
    await create_topics(kafka.bootstrap_servers, "watched-", ["custom"], partitions=1)
    target = Target(discontent)
    sinks: Mapping[str, Mapping[str, str]] = {
        "tables": {"type": "sql"},
        "warehouse": {"type": "sql", "url": postgres.url(DATABASE)},
        "inbox": {"type": "http", "url": target.url},
        "lake": {"type": "files", "format": "jsonl"},
        "feed": {
            "type": "kafka",
            "bootstrap_servers": kafka.bootstrap_servers,
            "topic": "watched-custom",
        },
    }
    system = Watched(folder, settings, sinks, env, target=target)
    mail = {
        "CASEWIRE_ALERTS__MAIL_TO": "night@example.org",
        "CASEWIRE_ALERTS__MAIL_FROM": "casewire@example.org",
        "CASEWIRE_ALERTS__SMTP_HOST": "127.0.0.1",
        "CASEWIRE_ALERTS__SMTP_PORT": str(system.mailbox.port),
        "CASEWIRE_ALERTS__SMTP_SECURITY": "none",
        "CASEWIRE_SINKS__LAKE__BATCH_SECONDS": "1",
        "CASEWIRE_CONSOLE_BIND": f"127.0.0.1:{free_port()}",
    }
    collector = {
        "CASEWIRE_TRACING__ENDPOINT": system.collector.endpoint,
        "CASEWIRE_TRACING__HEADERS_FILE": str(folder / "collector-headers"),
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    (folder / "collector-headers").write_text("X-Collector-Key: made up\n")
    system.env = {**env, **mail, **collector}
    await create(system)
    secret = folder / "secret"
    secret.write_text("not a real secret")
    secret.chmod(0o600)
    with system.config_file.open("a") as file:
        file.write(
            f'\n[domains.demo]\n[domains.locked]\n[credentials.lock]\nkind = "basic"\n'
            f'username = "hq"\ndomains = ["locked"]\nsecret_file = "{secret}"\n'
        )
    await target.start()
    await system.collector.start()
    with running_mail(system.mailbox):
        try:
            for role in system.roles[:2]:
                system.start(role)
            await system.ready(system.roles[:2])
            for role in system.roles[2:]:
                system.start(role)
            await system.ready(system.roles)
            yield system
        finally:
            system.stop()
            await target.kill()
            await system.collector.stop()
