"""uvicorn as measured.md §3 found it fastest, on a socket that several processes can share."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from schemas.errors import UnavailableError

#: How long requests may go on after the stop; with the publisher's flush it stays below 10 s.
_GRACE_SECONDS: Final = 5
_BACKLOG: Final = 2048


async def serve(app: ASGIApp, bind: str, *, stop: asyncio.Event | None = None) -> None:
    """Serve on `host:port` until `stop` is set, or, without one, until SIGTERM or SIGINT.

    Then accept no more, finish what is in flight, run the application's shutdown and return,
    within 10 s. Raises UnavailableError if the address cannot be bound.
    """
    listener = _listen(bind)
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = _Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        stopping.cancel()
        await serving


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would raise them anew at the end, and so kill us."""
        yield


def _listen(bind: str) -> socket.socket:
    host, _, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, int(port)))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"the ingress cannot listen on {bind} ({error.strerror}): "
            "free the address or set [ingress] bind to another"
        ) from error
    return listener
