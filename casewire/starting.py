"""How a role begins: it waits for a broker, and hears meanwhile when it is to stop."""

import asyncio
import signal
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog

from casewire.config import Config
from casewire.health import Health, serving_health
from casewire.topics import NoBrokerError, require_topics
from kafka_clients.rights import Right
from streams.delivery import backoff

_log = structlog.get_logger(__name__)


def told_to_stop() -> asyncio.Event:
    """Return the event that SIGTERM and SIGINT set from now on, instead of ending the process."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def can_start(
    config: Config, role: str, needed: Sequence[Right], stop: asyncio.Event
) -> bool:
    """Return True once a broker has the topics and gives the rights, False once `stop` is set.

    A role that waits tells its health. Raises UnavailableError for what does not pass by itself.
    """
    try:
        return await _unless(stop, require_topics(config.cluster, needed))
    except NoBrokerError as error:
        first = error
    waiting = "no broker answers yet; it is tried again"
    health = Health(live=lambda: None, ready=lambda: waiting)
    bind, run_dir = config.machine.metrics_bind, config.run_dir
    async with serving_health(health, role=role, bind=bind, run_dir=run_dir):
        return await _in_the_end(config, needed, stop, first)


async def _in_the_end(
    config: Config, needed: Sequence[Right], stop: asyncio.Event, error: NoBrokerError
) -> bool:
    for seconds in backoff():
        _log.warning(
            "no broker answers yet; it is tried again",
            seconds=round(seconds, 1),
            reason=str(error),
        )
        if await _unless(stop, asyncio.sleep(seconds)):
            try:
                return await _unless(stop, require_topics(config.cluster, needed))
            except NoBrokerError as again:
                error = again
        else:
            break
    return False


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Return whether work was done before `stop` was set; then it is cancelled."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.wait([working])
    return False
