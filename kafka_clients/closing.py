"""Stopping aiokafka's consumers, also while no broker answers."""

import asyncio
from typing import Any


async def close_consumer(consumer: Any) -> None:
    """Stop a consumer.

    Its fetcher cancels what waits to fetch again, and lets that cancellation through as if we were
    the ones to be cancelled (aiokafka 0.14, `Fetcher.close`): a process that was told to stop would
    end with an error, a thread before it has told that it has ended.
    """
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        await consumer._client.close()  # noqa: SLF001 - which stop has not come to
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
