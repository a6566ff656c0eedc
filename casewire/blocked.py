"""Ends a process whose event loop is blocked: whoever started it starts it anew."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Final

import structlog

#: Looks in a row that find the loop where it was. Looks, not seconds: a process that was frozen
#: for an hour finds its loop blocked once.
PATIENCE: Final = 12
INTERVAL_SECONDS: Final = 10.0

_log = structlog.get_logger(__name__)


@contextlib.contextmanager
def ending_if_blocked() -> Iterator[None]:
    """Watch over the running loop until the end of the block, from a thread of its own."""
    loop = asyncio.get_running_loop()
    turned, over = threading.Event(), threading.Event()

    def watch() -> None:
        looks = 0
        while not over.wait(INTERVAL_SECONDS):
            looks = 0 if turned.is_set() else looks + 1
            if looks > PATIENCE:
                _log.critical("the event loop is blocked; the process ends", count=looks)
                os._exit(1)
            turned.clear()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(turned.set)

    thread = threading.Thread(target=watch, name="blocked", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
