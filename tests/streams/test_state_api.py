"""The state API on a real broker, of two workers that are processes and of one that is none."""

import contextlib
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import jsonschema
import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from casewire.addresses import Address
from casewire.cli import run
from casewire.config import load_config
from casewire.health import running as running_processes
from casewire.simulation.delivery import deliver
from casewire.simulation.history import Plan, make_history
from casewire.state_api import make_token, read_token, serving_states
from schemas.case import CaseState
from schemas.errors import InvalidEventError
from schemas.partitioner import partition_of
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS
from streams.api_description import DOCUMENT
from streams.app import create_streams_app
from streams.decode import decode
from streams.records import header
from streams.state import CaseJudge, case_judge, change_judge
from tests.end_to_end.system import System
from tests.kafka_tools import create_topics, read_all
from tests.servers import KafkaServer, free_port
from tests.streams.made import Made, captured
from tests.streams.test_worker import (
    case_body,
    compared,
    events,
    judged,
    of_request,
    read_until,
    running,
    send,
)

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

WORKERS = ("streams", "streams#2")
PARTITIONS = 4
SNAPSHOT: CaseJudge = case_judge(writer="", window_microseconds=10_000_000)
CHANGE: CaseJudge = change_judge(writer="", window_microseconds=10_000_000)


#: References in the description are to what is beside the schema then.
COMPONENTS: dict[str, Any] = {"components": DOCUMENT["components"]}


def described(path: str) -> Any:
    """Return what the description says of asking for a path."""
    kind, _, _, *story = path.split("/")
    template = {
        "cases": "/api/v1/cases/{domain}/{case_id}",
        "forms": "/api/v1/forms/{domain}/{form_id}",
    }[kind]
    return DOCUMENT["paths"]["/".join([template, *story])]["get"]


@dataclass
class Client:
    """A client that has the token."""

    session: aiohttp.ClientSession

    async def get(self, api: str, path: str, **query: str) -> tuple[int, Any]:
        """Return status and body; fail if the description does not say that this may come."""
        async with self.session.get(f"http://{api}/api/v1/{path}", params=query) as answer:
            said = orjson.loads(await answer.read())
            if re.fullmatch(r"(cases|forms)/[^/]+/[^/]+(/history)?", path):
                schema = described(path)["responses"][str(answer.status)]["content"]
                resolved = schema["application/json"]["schema"] | COMPONENTS
                jsonschema.validate(said, resolved)
            return answer.status, said

    async def settled(self, api: str, path: str, **query: str) -> tuple[int, Any]:
        """Ask until the answer is another one than 503."""
        with anyio.fail_after(60):
            while True:
                status, said = await self.get(api, path, **query)
                if status != 503:
                    return status, said
                await anyio.sleep(0.1)

    async def until(self, api: str, path: str, n: str) -> None:
        """Ask until the state's property `n` is that."""
        with anyio.fail_after(60):
            while True:
                status, said = await self.get(api, path)
                assert status in {200, 404, 503}
                if status == 200 and said["state"]["properties"]["n"] == n:
                    return
                await anyio.sleep(0.1)


@contextlib.asynccontextmanager
async def client_with(token: str) -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield Client(session)


@dataclass
class Asked:
    """Two workers that have processed `records`, a client, and what they have published."""

    config_file: Path
    apis: Sequence[str]
    client: Client
    records: Sequence[Made]
    published: Mapping[str, CaseState]
    forms: Mapping[str, bytes]


@contextlib.asynccontextmanager
async def two_workers(kafka: KafkaServer, folder: Path) -> AsyncIterator[System]:
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers,
        topic_prefix=f"t{uuid.uuid4().hex[:10]}.",
        partitions=PARTITIONS,
    )
    system = System(folder, settings, sinks={})
    system.write_config()
    await create_topics(settings.bootstrap_servers, settings.topic_prefix, TOPICS, PARTITIONS)
    for role in WORKERS:
        system.start(role)
    try:
        await system.ready(WORKERS)
        yield system
    finally:
        system.stop()


def apis(system: System) -> Sequence[str]:
    """Return the addresses of the workers that run, in the order of their start."""
    told = {one.pid: one.state_api for one in running_processes(system.folder / "data" / "run")}
    return [told[process.pid] for process in system.processes.values()]


def token_of(system: System) -> str:
    return read_token(load_config(system.config_file, {}))


@pytest.fixture(scope="module")
async def asked(
    kafka: KafkaServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Asked]:
    history = make_history(5150, datetime.now(UTC), Plan(domain="demo", cases=12, changes=80))
    records = [of_request(request) for request in deliver(history, 5150, late=0.1)]
    async with two_workers(kafka, tmp_path_factory.mktemp("asked")) as system:
        settings = system.kafka
        await send(settings, "captured", records)
        expected = events(records)
        await read_until(settings, "deliveries", lambda found: judged(found) >= expected)
        states = await read_all(settings.bootstrap_servers, settings.topic("case-state"))
        forms = await read_all(settings.bootstrap_servers, settings.topic("form-state"))
        async with client_with(token_of(system)) as client:
            yield Asked(
                system.config_file,
                apis(system),
                client,
                records,
                {(r.key or b"").decode(): CaseState.from_json(r.value or b"") for r in states},
                {(r.key or b"").decode(): r.value or b"" for r in forms},
            )


def of_case(records: Sequence[Made], key: str) -> list[tuple[str, Made, CaseJudge]]:
    """Return what of the captured records is about a case: time of capture, event, judge."""
    found = []
    for record in records:
        with contextlib.suppress(InvalidEventError):
            decoded = decode(record)
            about = [(out, CHANGE) for out in decoded.changes]
            if decoded.topic == "cases":
                about.append((decoded.out, SNAPSHOT))
            for out, judge in about:
                if out.key == key.encode():
                    made = Made(out.value, out.key, out.headers)
                    found.append((header(out.headers, "ce_time") or "", made, judge))
    return found


def told_by_oracle(events_of_case: Sequence[tuple[str, Made, CaseJudge]], at: str) -> CaseState:
    """Return the state that the events captured till then make, judged one after the other."""
    state = fold = None
    for time, record, judge in events_of_case:
        if time <= at:
            judged_now = judge(record, state, fold)
            state = judged_now.publish.value if judged_now.publish is not None else state
            fold = judged_now.fold.value if judged_now.fold is not None else fold
    assert state is not None
    return CaseState.from_json(state)


async def test_any_worker_tells_what_is_published_of_any_key(asked: Asked) -> None:
    assert len(asked.published) == 12
    held = {partition_of(key.encode(), PARTITIONS) for key in asked.published}
    assert len(held) > 1  # so one of the two had to ask the other
    for key, state in asked.published.items():
        for api in asked.apis:
            status, said = await asked.client.get(api, f"cases/{key}")
            assert (status, said["at"]) == (200, None)
            assert CaseState.from_object(said["state"]) == state
    for key, form in list(asked.forms.items())[:6]:
        for api in asked.apis:
            assert (await asked.client.get(api, f"forms/{key}"))[1]["state"] == orjson.loads(form)


async def test_the_state_at_a_past_moment_is_that_of_the_events_captured_till_then(
    asked: Asked,
) -> None:
    moments = 0
    for key, published in asked.published.items():
        of_this = of_case(asked.records, key)
        first, last = of_this[0][0], of_this[-1][0]
        for time, _, _ in of_this[:-1]:
            if time == last:
                continue
            status, said = await asked.client.settled(asked.apis[0], f"cases/{key}", at=time)
            assert (status, said["at"]) == (200, time)
            assert CaseState.from_object(said["state"]) == told_by_oracle(of_this, time)
            moments += 1
        before = "2020-01-01T00:00:00Z"
        status, said = await asked.client.settled(asked.apis[1], f"cases/{key}", at=before)
        assert status == 404
        assert first in said["error"]
        for api in asked.apis:
            _, said = await asked.client.settled(api, f"cases/{key}", at=last)
            assert CaseState.from_object(said["state"]) == published
        assert compared(told_by_oracle(of_this, last)) == compared(published)
    assert moments > 50


async def test_a_story_is_told_whole_page_by_page_and_ends_in_the_state(asked: Asked) -> None:
    for key, published in asked.published.items():
        told: list[Any] = []
        after: dict[str, str] = {}
        while True:
            status, page = await asked.client.settled(
                asked.apis[0], f"cases/{key}/history", limit="7", **after
            )
            assert (status, page["complete"]) == (200, True)
            assert len(page["events"]) <= 7
            told += page["events"]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert [each["captured_at"] for each in told] == [
            time for time, _, _ in of_case(asked.records, key)
        ]
        assert {each["outcome"] for each in told} <= {"applied", "stale", "duplicate"}
        said: dict[str, Any] = {}
        for difference in (each for step in told for each in step["differences"]):
            assert said.get(difference["name"]) == difference["old"]
            said[difference["name"]] = difference["new"]
        last = {f"properties.{name}": value for name, value in published.properties.items()}
        if not published.deleted:
            now = {name: value for name, value in said.items() if value is not None}
            assert {name: now[name] for name in now if name.startswith("properties.")} == last
            assert said["closed"] == published.closed


@pytest.mark.parametrize(
    ("path", "query", "status", "fragment"),
    [
        ("cases/demo/nobody", {}, 404, "not known"),
        ("cases/demo/nobody", {"at": "2026-01-01T00:00:00Z"}, 404, "not known"),
        ("cases/demo/nobody/history", {}, 404, "not known"),
        ("forms/demo/nobody", {}, 404, "not known"),
        ("cases/demo", {}, 404, "not found"),
        ("cases/demo/nobody", {"at": "2026-01-01"}, 400, "RFC 3339"),
        ("cases/demo/nobody", {"at": "2026-01-01T00:00:00"}, 400, "RFC 3339"),
        ("cases/demo/nobody", {"at": "2026-13-01T00:00:00Z"}, 400, "RFC 3339"),
        ("cases/demo/nobody/history", {"limit": "0"}, 400, "limit"),
        ("cases/demo/nobody/history", {"limit": "1001"}, 400, "limit"),
    ],
)
async def test_what_cannot_be_answered_is_a_sentence(
    asked: Asked, path: str, query: Mapping[str, str], status: int, fragment: str
) -> None:
    for api in asked.apis:
        found, said = await asked.client.settled(api, path, **query)
        assert (found, fragment in said["error"]) == (status, True), said


async def test_a_page_after_an_event_of_another_story_is_refused(asked: Asked) -> None:
    key = next(iter(asked.published))
    status, said = await asked.client.settled(asked.apis[0], f"cases/{key}/history", after="x")
    assert (status, said["error"].split(":")[0]) == (400, "after")


@pytest.mark.parametrize("token", ["", "wrong", "\u00e9"])
async def test_nobody_is_answered_without_the_token(asked: Asked, token: str) -> None:
    async with client_with(token) as stranger:
        for path in ("cases/demo/x", "cases/demo/x/history", "forms/demo/x", "nonsense"):
            assert (await stranger.get(asked.apis[0], path))[0] == 401


async def test_a_question_is_forwarded_once(asked: Asked) -> None:
    asked.client.session.headers["casewire-forwarded"] = "1"
    answers = {
        (await asked.client.get(api, f"cases/{key}"))[0]
        for key in asked.published
        for api in asked.apis
    }
    del asked.client.session.headers["casewire-forwarded"]
    assert answers == {200, 503}


async def called(asked: Asked, *arguments: str) -> int:
    """Call `casewire case`; return its status."""
    whole = ["--config", str(asked.config_file), "case", *arguments]
    return await anyio.to_thread.run_sync(run, whole, {})


async def test_the_command_tells_a_state_a_past_one_and_the_story(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    key, state = max(asked.published.items(), key=lambda item: len(of_case(asked.records, item[0])))
    assert await called(asked, key) == 0
    shown = capsys.readouterr().out
    assert key in shown
    for name, value in state.properties.items():
        assert re.search(rf"^{re.escape(name)} +{re.escape(value) or '..'}", shown, re.MULTILINE)
    assert await called(asked, state.case_id, "--domain", state.domain, "--json") == 0
    said = orjson.loads(capsys.readouterr().out)
    assert CaseState.from_object(said["state"]) == state
    first = of_case(asked.records, key)[0][0]
    assert await called(asked, key, "--at", first) == 0
    assert first in capsys.readouterr().out
    assert await called(asked, key, "--history") == 0
    story = capsys.readouterr().out
    for time, _, _ in of_case(asked.records, key):
        assert time in story
    assert await called(asked, key, "--history", "--json") == 0
    assert len(orjson.loads(capsys.readouterr().out)["events"]) == len(of_case(asked.records, key))


async def test_the_command_says_what_is_wrong_in_a_sentence(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, status, fragment in (
        (["nobody", "--domain", "demo"], 1, "this case is not known"),
        (["nobody"], 1, "--domain"),
        (["demo/nobody", "--at", "noon"], 1, "RFC 3339"),
        (["demo/nobody", "--at", "2026-01-01T00:00:00Z", "--history"], 2, "leave out one"),
    ):
        assert await called(asked, *arguments) == status
        assert fragment in capsys.readouterr().err
    token_file = asked.config_file.parent / "data" / "state-api.token"
    token = token_file.read_text(encoding="ascii")
    token_file.write_text("x" * 32, encoding="ascii")
    assert await called(asked, "demo/nobody") == 1
    token_file.write_text(token, encoding="ascii")
    assert f"refuses the token in {token_file}" in capsys.readouterr().err


def test_without_a_worker_the_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bind = f"127.0.0.1:{free_port()}"
    env = {"CASEWIRE_DATA_DIR": str(tmp_path), "CASEWIRE_STREAMS_BIND": bind}
    assert run(["case", "demo/x"], env) == 1
    assert "start a streams worker" in capsys.readouterr().err
    make_token(load_config(None, env))
    assert run(["case", "demo/x"], env) == 1
    assert f"no streams worker answers at {bind}" in capsys.readouterr().err


async def test_the_description_is_of_these_addresses(asked: Asked) -> None:
    async with asked.client.session.get(f"http://{asked.apis[0]}/openapi.json") as answer:
        assert await answer.json() == DOCUMENT
    for path in DOCUMENT["paths"]:
        url = f"http://{asked.apis[0]}{path}"
        async with asked.client.session.get(url) as answer:
            assert "not found" not in await answer.text()


async def test_kill_9_of_a_worker_leaves_every_answer_to_the_other(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    async with two_workers(kafka, tmp_path) as system, client_with(token_of(system)) as client:
        times = ("first", "second")
        records = {
            time: [captured(case_body(f"c{i}", 60 * n, "ab"[: n + 1], n=time)) for i in range(8)]
            for n, time in enumerate(times)
        }
        await send(system.kafka, "captured", records["first"])
        (_, survivor) = apis(system)
        for number in range(8):
            path = f"cases/demo/c{number}"
            await client.until(survivor, path, n="first")
        system.kill("streams")
        await send(system.kafka, "captured", records["second"])
        for number in range(8):
            path = f"cases/demo/c{number}"
            await client.until(survivor, path, n="second")
            at = header(records["first"][-1].headers, "ce_time") or ""
            _, then = await client.settled(survivor, path, at=at)
            assert then["state"]["properties"]["n"] == "first"


@contextlib.asynccontextmanager
async def one_worker(settings: KafkaSettings, folder: Path) -> AsyncIterator[tuple[str, Client]]:
    """Run a worker in this process, with its state API; give that one's address and a client."""
    config = load_config(
        None,
        {
            "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
            "CASEWIRE_KAFKA__TOPIC_PREFIX": settings.topic_prefix,
            "CASEWIRE_KAFKA__PARTITIONS": str(settings.partitions),
            "CASEWIRE_STREAMS__SESSION_TIMEOUT_SECONDS": "6",
            "CASEWIRE_DATA_DIR": str(folder),
        },
    )
    address = Address("127.0.0.1", free_port())
    app = create_streams_app(settings, config.streams, config.data_dir, address=str(address))
    async with (
        serving_states(app, config, str(address), address.listening()),
        running(app),
        client_with(make_token(config)) as client,
    ):
        yield str(address), client


async def delete_before(settings: KafkaSettings, topic: str, offsets: Mapping[int, int]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records(
            {
                TopicPartition(settings.topic(topic), partition): RecordsToDelete(offset)
                for partition, offset in offsets.items()
            }
        )
    finally:
        await admin.close()


async def test_what_is_not_kept_any_more_is_gone_and_an_index_is_made_anew(
    kafka: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=1
    )
    await create_topics(settings.bootstrap_servers, prefix, TOPICS, 1)
    now = (datetime.now(UTC) - datetime.fromtimestamp(1_700_000_000, UTC)).total_seconds()
    changes = [captured(case_body("c1", now + 60 * n, "abcd"[: n + 1], n=str(n))) for n in range(4)]
    times = [header(record.headers, "ce_time") or "" for record in changes]
    await send(settings, "captured", changes)

    async def told(api: str, client: Client) -> list[tuple[int, Any]]:
        return [await client.settled(api, "cases/demo/c1", at=time) for time in times]

    def numbers(answers: Sequence[tuple[int, Any]]) -> list[str | int]:
        return [
            said["state"]["properties"]["n"] if status == 200 else status
            for status, said in answers
        ]

    async with one_worker(settings, tmp_path) as (api, client):
        await read_until(settings, "deliveries", lambda found: judged(found) == 4)
        assert numbers(await told(api, client)) == ["0", "1", "2", "3"]
        await delete_before(settings, "cases", {0: 2})
        answers = await told(api, client)
        assert numbers(answers) == [410, 410, "2", "3"]
        assert answers[0][1]["oldest"] == times[2]
        assert times[2] in answers[0][1]["error"]
        _, story = await client.settled(api, "cases/demo/c1/history")
        assert not story["complete"]
        assert [(each["outcome"], each["differences"]) for each in story["events"]] == [
            ("applied", None),
            ("applied", [{"name": "properties.n", "old": "2", "new": "3"}]),
        ]
    shutil.rmtree(tmp_path / "tables")
    async with one_worker(settings, tmp_path) as (api, client):
        assert numbers(await told(api, client)) == [410, 410, "2", "3"]
        await delete_before(settings, "cases", {0: 4})
        answers = await told(api, client)
        assert numbers(answers) == [410, 410, 410, "3"]
        assert answers[0][1]["oldest"][:23] == times[3][:23]
