"""How fast states are told: `python -m benchmarks.states` writes benchmarks/results/states.md.

Two `casewire streams` on one broker, all on this machine. Requests go out at a fixed rate, whether
or not the ones before are answered, and a latency counts from when its request was due. First with
nothing else to do, then while events come in.
"""

import asyncio
import contextlib
import itertools
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import aiohttp
from aiokafka import AIOKafkaProducer

from benchmarks.machine import BUSY, cpu_seconds, described, quiet, taken_by_others
from benchmarks.streams.path import case_bodies
from casewire.config import load_config
from casewire.health import running
from casewire.progress import await_caught_up
from casewire.state_api import read_token
from schemas.envelope import Address, EventIds, captured_headers
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS
from streams.api import FORWARDED
from tests.end_to_end.system import System
from tests.kafka_tools import create_topics
from tests.servers import running_kafka

RESULTS: Final = Path(__file__).parent / "results" / "states.md"
WORKERS: Final = ("streams", "streams#2")
CASES: Final = 1000
EVENTS_A_CASE: Final = 50
LONG_STORY: Final = 1000
LATEST_A_SECOND: Final = 50
PAST_A_SECOND: Final = 2
EVENTS_A_SECOND: Final = 500
SECONDS: Final = 15
SEED: Final = 1
_BATCH: Final = 500

Url: TypeAlias = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Lab:
    """Two workers with states, a client, and which cases the first worker holds."""

    system: System
    client: aiohttp.ClientSession
    held: Sequence[str]
    others: Sequence[str]
    halfway: str
    halfway_of_long: str

    @property
    def pids(self) -> Sequence[int]:
        return [process.pid for process in self.system.processes.values()]

    def api(self) -> str:
        told = {one.pid: one.state_api for one in running(self.system.folder / "data" / "run")}
        return f"http://{told[self.pids[0]]}/api/v1"

    def questions(self) -> Iterator[tuple[str, int, Url]]:
        """Yield what is measured: a name, requests a second, and what makes the next address."""
        rng = random.Random(SEED)  # noqa: S311 - reproducible, not secret
        api, at = self.api(), self.halfway
        yield (
            "latest state, of the worker asked",
            LATEST_A_SECOND,
            lambda: f"{api}/{rng.choice(self.held)}",
        )
        yield "latest state, forwarded", LATEST_A_SECOND, lambda: f"{api}/{rng.choice(self.others)}"
        yield (
            f"past moment, {EVENTS_A_CASE // 2} events",
            PAST_A_SECOND,
            lambda: f"{api}/{rng.choice(self.held)}?at={at}",
        )
        yield (
            f"story of {EVENTS_A_CASE} events",
            PAST_A_SECOND,
            lambda: f"{api}/{rng.choice(self.held)}/history",
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """Latencies in milliseconds, sorted; `cpu` is the workers' milliseconds a request."""

    latencies: Sequence[float]
    wrong: int
    cpu: float

    def at(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


async def capture(kafka: KafkaSettings, bodies: Sequence[bytes], domain: str, rate: int = 0) -> str:
    """Write captured events as the ingress does, `rate` a second; return the middle one's time."""
    ids = EventIds()
    address = Address(domain=domain, label="", method="POST", path=f"/api/v1/in/{domain}", query="")
    topic = kafka.topic("captured")
    times = []
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all") as producer:
        began = time.monotonic()
        for number, body in enumerate(bodies):
            if rate and (early := began + number / rate - time.monotonic()) > 0:
                await asyncio.sleep(early)
            event_id, at = ids.next()
            times.append(at)
            headers = captured_headers(event_id, at, address, [])
            await producer.send(topic, body, event_id.encode(), headers=headers)
            if number % _BATCH == 0:
                await asyncio.sleep(0)
    return times[len(times) // 2]


async def ask(lab: Lab, url: Url, rate: int, seconds: float) -> Measured:
    """Send requests at a rate, on time whatever the answers; see what comes back."""
    latencies: list[float] = []
    wrong = 0

    async def one(due: float, address: str) -> None:
        nonlocal wrong
        async with lab.client.get(address) as answer:
            await answer.read()
            wrong += answer.status != 200
        latencies.append((time.monotonic() - due) * 1000)

    before = sum(map(cpu_seconds, lab.pids))
    began = time.monotonic()
    tasks = []
    for number in itertools.count():
        due = began + number / rate
        if due > began + seconds:
            break
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(one(due, url())))
    await asyncio.gather(*tasks)
    spent = sum(map(cpu_seconds, lab.pids)) - before
    return Measured(sorted(latencies), wrong, 1000 * spent / len(latencies))


@contextlib.asynccontextmanager
async def laboratory(kafka: KafkaSettings, folder: Path) -> AsyncIterator[Lab]:
    system = System(folder, kafka, sinks={})
    system.write_config()
    await create_topics(kafka.bootstrap_servers, kafka.topic_prefix, TOPICS, kafka.partitions)
    for role in WORKERS:
        system.start(role)
    try:
        await system.ready(WORKERS)
        bodies = list(case_bodies(CASES * EVENTS_A_CASE, CASES))
        halfway = await capture(kafka, bodies, "demo")
        long = await capture(kafka, list(case_bodies(LONG_STORY, 1)), "long")
        await await_caught_up(kafka, {}, lambda _group, _left: None)
        token = read_token(load_config(system.config_file, {}))
        headers = {"authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=headers) as client:
            lab = Lab(system, client, (), (), halfway, long)
            keys = [f"cases/demo/{n:08x}-0000-4000-8000-{n:012x}" for n in range(CASES)]
            held = [key for key in keys if await _holds(lab, key)]
            others = [key for key in keys if key not in held]
            lab = replace(lab, held=held, others=others)
            await _indexed(lab)
            yield lab
    finally:
        system.stop()


async def _holds(lab: Lab, key: str) -> bool:
    async with lab.client.get(f"{lab.api()}/{key}", headers={FORWARDED: "1"}) as answer:
        return answer.status == 200


async def _indexed(lab: Lab) -> None:
    for key in lab.held[:50]:
        while True:
            async with lab.client.get(f"{lab.api()}/{key}/history") as answer:
                if answer.status == 200:
                    break
            await asyncio.sleep(0.1)


async def measure(kafka: KafkaSettings, folder: Path) -> Sequence[str]:
    lines = []
    async with laboratory(kafka, folder) as lab:
        for load in (0, EVENTS_A_SECOND):
            for name, rate, url in lab.questions():
                lines.append(_row(name, load, await _under_load(lab, url, rate, load)))
        first = f"{lab.api()}/cases/long/{0:08x}-0000-4000-8000-{0:012x}"
        for name, address in (
            (f"past moment, {LONG_STORY // 2} events", f"{first}?at={lab.halfway_of_long}"),
            (f"story of {LONG_STORY} events", f"{first}/history?limit=1000"),
        ):
            lines.append(_row(name, 0, await ask(lab, partial(str, address), 1, 10)))
    return lines


async def _under_load(lab: Lab, url: Url, rate: int, load: int) -> Measured:
    await ask(lab, url, rate, 2)  # warm
    if not load:
        return await ask(lab, url, rate, SECONDS)
    bodies = list(case_bodies(load * (SECONDS + 1), CASES, seed=2))
    sending = asyncio.create_task(capture(lab.system.kafka, bodies, "other", load))
    measured = await ask(lab, url, rate, SECONDS)
    await sending
    return measured


def _row(name: str, load: int, measured: Measured) -> str:
    figures = " | ".join(f"{measured.at(share):.1f}" for share in (0.5, 0.99, 1))
    return f"| {name} | {load} | {figures} | {measured.wrong} | {measured.cpu:.1f} |"


def main() -> None:
    before = taken_by_others()
    with tempfile.TemporaryDirectory(prefix="casewire-states-") as name:
        folder = Path(name)
        with running_kafka(folder / "kafka") as broker:
            kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, topic_prefix="bench.")
            rows = asyncio.run(measure(kafka, folder))
    after = taken_by_others()
    text = [
        "# How fast states are told",
        "",
        *described(["aiokafka", "starlette", "uvicorn", "faust-streaming"]),
        f"- {CASES} cases with some {EVENTS_A_CASE} events each, two workers",
        (
            f"- {LATEST_A_SECOND} requests a second for latest states, {PAST_A_SECOND} for the "
            f"past, for {SECONDS} s, from one Python process"
        ),
        f"- run at nice {os.nice(0)}",
        f"- others took {before:.0%} of the processors before, {after:.0%} after",
        *([] if quiet(before, after) else ["", BUSY]),
        "",
        "| question | events/s meanwhile | p50 ms | p99 ms | max ms | not 200 | CPU ms a request |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
    ]
    RESULTS.write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))  # noqa: T201 - the result


if __name__ == "__main__":
    main()
