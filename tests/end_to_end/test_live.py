"""Real processes that freeze, hang or wait: what `/health/live` says, and what becomes of them."""

import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import aiohttp
import anyio
import pytest

from casewire.health import running
from schemas.settings import KafkaSettings
from schemas.step import Step
from tests.end_to_end.system import System, create
from tests.schemas.captures import HQ
from tests.servers import KafkaServer, free_port
from tests.sinks.http_target import forwarded
from tests.streams.test_worker import send

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

#: A worker without patience. Its client of Kafka hangs as soon as a file `client` is there in its
#: folder, and its event loop with a file `loop`.
IMPATIENT: Final = """
import pathlib, time
import streams.app
from casewire import blocked
from casewire.__main__ import main
from streams.batches import consumer

folder = pathlib.Path({folder!r})

def hanging(name, work):
    async def hang(self, *args, **more):
        if (folder / name).exists():
            time.sleep(3600)
        return await work(self, *args, **more)
    return hang

thread = consumer.BatchConsumerThread
thread._fetch_records = hanging("client", thread._fetch_records)
thread.getmany = hanging("loop", thread.getmany)
consumer.STUCK_SECONDS = 2
consumer.INTERVAL_SECONDS = 1
blocked.INTERVAL_SECONDS = 0.2
streams.app.END_SECONDS = 1
main()
"""


def impatient(system: System) -> Sequence[str]:
    return ["-c", IMPATIENT.format(folder=str(system.folder))]


@pytest.fixture
async def system(kafka: KafkaServer, prefix: str, tmp_path: Path) -> AsyncIterator[System]:
    """Topics, and a sink to an address where nobody is; no role runs yet."""
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=1
    )
    nobody = f"http://127.0.0.1:{free_port()}/inbox"
    system = System(tmp_path, settings, {"inbox": {"type": "http", "url": nobody}})
    await create(system)
    try:
        yield system
    finally:
        for process in system.processes.values():
            process.send_signal(signal.SIGCONT)
        system.stop()


async def live(system: System, role: str) -> tuple[int, str]:
    """Return what a role answers; 0 if it does not answer in a second."""
    pid = system.processes[role].pid
    (address,) = (one.address for one in running(system.folder / "data/run") if one.pid == pid)
    timeout = aiohttp.ClientTimeout(total=1)
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.get(f"http://{address}/health/live") as answer,
        ):
            return answer.status, await answer.text()
    return 0, ""


async def until(come: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(60):
        while not await come():  # noqa: ASYNC110 - what is awaited sets no event
            await anyio.sleep(0.1)


async def test_a_worker_whose_client_of_kafka_hangs_is_not_live_and_ends(system: System) -> None:
    system.start("streams", program=impatient(system))
    await system.ready(["streams"])
    assert await live(system, "streams") == (200, "ok\n")
    (system.folder / "client").touch()

    async def said() -> bool:
        status, text = await live(system, "streams")
        return status == 503 and text.startswith("Kafka's client has not answered for ")

    await until(said)
    process = system.processes.pop("streams")
    with anyio.fail_after(60):
        assert await anyio.to_thread.run_sync(process.wait) == 1
    assert "StuckError" in system.log("streams").read_text()


async def test_a_worker_whose_loop_is_blocked_ends(system: System) -> None:
    system.start("streams", program=impatient(system))
    await system.ready(["streams"])
    (system.folder / "loop").touch()
    process = system.processes.pop("streams")
    with anyio.fail_after(60):
        assert await anyio.to_thread.run_sync(process.wait) == 1
    assert "the event loop is blocked; the process ends" in system.log("streams").read_text()


async def test_a_target_that_is_down_leaves_its_worker_live(system: System) -> None:
    _, state = forwarded((HQ / "case_json_current_open.json").read_bytes())
    await send(system.kafka, "case-state", [state])
    system.start("sink inbox", program=impatient(system))
    await system.ready(["sink inbox"])

    async def tried_for_long() -> bool:
        assert await live(system, "sink inbox") == (200, "ok\n")
        return system.log("sink inbox").read_text().count("the target takes nothing now") >= 4

    await until(tried_for_long)


async def test_a_frozen_process_does_not_answer_and_is_live_again(system: System) -> None:
    system.start("ingress")
    await system.ready(["ingress"])
    system.processes["ingress"].send_signal(signal.SIGSTOP)
    assert await live(system, "ingress") == (0, "")
    system.processes["ingress"].send_signal(signal.SIGCONT)
    assert await live(system, "ingress") == (200, "ok\n")


def test_a_step_is_overdue_only_while_it_goes_on() -> None:
    now = [0.0]
    step = Step("nothing came", 60, lambda: now[0])

    def at(seconds: float) -> tuple[float, str | None]:
        now[0] = seconds
        return step.seconds, step.overdue

    assert at(0) == (0, None)
    step.begin()
    assert at(60) == (60, None)
    assert at(75.5) == (75.5, "nothing came for 76 s")
    step.begin()
    assert at(76.5) == (1, None)
    step.end()
    assert at(1000) == (0, None)
