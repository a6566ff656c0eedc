"""From the POST to the published state: an open loop of events against ingress and streams."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import aiohttp
import orjson
from aiokafka import AIOKafkaConsumer

from benchmarks.ingress.load import HEADERS
from benchmarks.streams.events import visits
from benchmarks.streams.lab import Topics
from benchmarks.streams.product import system_in
from streams.records import captured_id

RATE: Final = 500
#: What is sent before what is measured.
WARM_SECONDS: Final = 5
_MOST_WAIT_SECONDS: Final = 60
#: The headers that HQ sends.
SENT: Final = {**HEADERS, "Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Latency:
    """In milliseconds from when an event was due to be sent; `sent_p99` is when it was."""

    events: int
    p50: float
    p99: float
    sent_p99: float


@dataclass(frozen=True, slots=True)
class Posted:
    """When an event was due, when it was sent and when it was answered, and the receipt's bytes."""

    due: float
    sent: float
    answered: float
    receipt: bytes

    @property
    def id(self) -> str:
        """The id that the ingress gave it."""
        found: str = orjson.loads(self.receipt)["id"]
        return found


async def latency(topics: Topics, folder: Path, seconds: int) -> Latency:
    """Measure for so many seconds after a warm-up, a new connection a request as HQ does it.

    Raises RuntimeError if an event is refused, and TimeoutError if a state is missing.
    """
    await topics.anew([])
    system = system_in(folder, topics)
    for role in ("ingress", "streams"):
        system.start(role)
    try:
        await system.ready(system.processes)
        return await _open_loop(topics, system.address("demo"), seconds)
    finally:
        system.stop()


async def _open_loop(topics: Topics, address: str, seconds: int) -> Latency:
    bodies = [each.body for each in visits(RATE * (WARM_SECONDS + seconds))]
    async with AIOKafkaConsumer(
        topics.kafka.topic("case-state"),
        bootstrap_servers=topics.kafka.bootstrap_servers,
        auto_offset_reset="earliest",
    ) as consumer:
        reader = asyncio.create_task(_arrivals(consumer, len(bodies)))
        events = await posted(address, bodies)
        arrived = await asyncio.wait_for(reader, _MOST_WAIT_SECONDS)
    return latency_of(events[RATE * WARM_SECONDS :], lambda event: arrived[event.id])


async def posted(address: str, bodies: Iterable[bytes]) -> Sequence[Posted]:
    """Send `RATE` bodies a second, each when it is due, by a connection of its own.

    Times are seconds since 1970. Raises RuntimeError if an event is refused.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True), headers=SENT
    ) as client:
        started = time.time()
        posts = []
        for number, body in enumerate(bodies):
            due = started + number / RATE
            await asyncio.sleep(max(0, due - time.time()))
            posts.append(asyncio.create_task(_post(client, address, body, due)))
        return await asyncio.gather(*posts)


async def _post(client: aiohttp.ClientSession, address: str, body: bytes, due: float) -> Posted:
    sent = time.time()
    async with client.post(address, data=body) as answer:
        receipt = await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{address} answered {answer.status}: {receipt.decode()}")
    return Posted(due, sent, time.time(), receipt)


async def _arrivals(consumer: Any, count: int) -> Mapping[str, float]:
    """Return when the states of so many captured events were there first."""
    arrived: dict[str, float] = {}
    while len(arrived) < count:
        record = await consumer.getone()
        arrived.setdefault(captured_id(record), time.time())
    return arrived


def latency_of(events: Sequence[Posted], arrived: Callable[[Posted], float]) -> Latency:
    """Return how long events took from when they were due."""
    cuts = quantiles((arrived(event) - event.due for event in events), n=100)
    sent = quantiles((event.sent - event.due for event in events), n=100)
    return Latency(len(events), cuts[49] * 1000, cuts[98] * 1000, sent[98] * 1000)
