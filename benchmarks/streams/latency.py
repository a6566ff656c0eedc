"""From the POST to the published state: an open loop of events against ingress and streams."""

import asyncio
import time
from collections.abc import Mapping, Sequence
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
_WARM_SECONDS: Final = 5
_MOST_WAIT_SECONDS: Final = 60
_SENT: Final = {**HEADERS, "Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Latency:
    """In milliseconds from when an event was due to be sent; `sent_p99` is when it was."""

    events: int
    p50: float
    p99: float
    sent_p99: float


@dataclass(frozen=True, slots=True)
class _Event:
    due: float
    sent: float
    id: str


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
    bodies = [each.body for each in visits(RATE * (_WARM_SECONDS + seconds))]
    async with (
        AIOKafkaConsumer(
            topics.kafka.topic("case-state"),
            bootstrap_servers=topics.kafka.bootstrap_servers,
            auto_offset_reset="earliest",
        ) as consumer,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True), headers=_SENT
        ) as client,
    ):
        reader = asyncio.create_task(_arrivals(consumer, len(bodies)))
        started = time.monotonic()
        posts = []
        for number, body in enumerate(bodies):
            due = started + number / RATE
            await asyncio.sleep(max(0, due - time.monotonic()))
            posts.append(asyncio.create_task(_post(client, address, body, due)))
        events = await asyncio.gather(*posts)
        arrived = await asyncio.wait_for(reader, _MOST_WAIT_SECONDS)
    return _of(events[RATE * _WARM_SECONDS :], arrived)


async def _post(client: aiohttp.ClientSession, address: str, body: bytes, due: float) -> _Event:
    sent = time.monotonic()
    async with client.post(address, data=body) as answer:
        receipt = await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the ingress answered {answer.status}: {receipt.decode()}")
    return _Event(due, sent, orjson.loads(receipt)["id"])


async def _arrivals(consumer: Any, count: int) -> Mapping[str, float]:
    """Return when the states of so many captured events were there first."""
    arrived: dict[str, float] = {}
    while len(arrived) < count:
        record = await consumer.getone()
        arrived.setdefault(captured_id(record), time.monotonic())
    return arrived


def _of(events: Sequence[_Event], arrived: Mapping[str, float]) -> Latency:
    cuts = quantiles((arrived[event.id] - event.due for event in events), n=100)
    sent = quantiles((event.sent - event.due for event in events), n=100)
    return Latency(len(events), cuts[49] * 1000, cuts[98] * 1000, sent[98] * 1000)
