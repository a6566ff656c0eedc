"""The listener of the ingress: shared by several processes, left without refusing anybody.

A listening socket that is closed resets the connections in its backlog. With SO_REUSEPORT each
process has a backlog of its own, so a restart would refuse clients although another process could
take them. So a process that stops first has the kernel drop the first packet of new connections to
*its* socket (the client sends it again after a second, and it goes to another process), takes all
that had begun, and then closes.
"""

import asyncio
import contextlib
import signal
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
from starlette.applications import Starlette

from ingress.connection import Bounds, Connection, Traffic
from ingress.metrics import IngressMetrics
from ingress.proxies import Proxies
from ingress.settings import IngressSettings
from schemas.errors import ConfigError, UnavailableError

#: How long requests may go on after the stop; with the publisher's five it stays below 10 s.
_GRACE_SECONDS: Final = 4.0
#: How long connections that are half open may take: a round trip.
_DRAIN_SECONDS: Final = 0.25
_CANCEL_SECONDS: Final = 0.5
_CHECK_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 0.02
_HANDSHAKE_SECONDS: Final = 20.0
_BACKLOG: Final = 2048

_log = structlog.get_logger(__name__)


async def serve(
    app: Starlette,
    bind: str,
    settings: IngressSettings,
    *,
    metrics: IngressMetrics | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve on `host:port` until `stop` is set, or, without one, until SIGTERM or SIGINT.

    It listens as soon as the application has started. At the end it accepts no more, finishes what
    is in flight, and runs the application's shutdown, all within 10 s. Certificates are read again
    when they change. Raises UnavailableError if the address cannot be bound, ConfigError if
    certificate or proxies are wrong.
    """
    tls = Certificate.of(settings)
    traffic = Traffic(
        app=app,
        bounds=bounds(settings),
        proxies=Proxies(settings.trusted_proxies),
        refused=(lambda _: None) if metrics is None else metrics.answered,
    )
    if metrics is not None:
        metrics.connections = lambda: len(traffic.connections)
    listener = _bind(bind)
    loop = asyncio.get_running_loop()
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
    async with app.router.lifespan_context(app):
        server = await loop.create_server(
            lambda: Connection(traffic),
            sock=listener.dup(),
            ssl=tls.context if tls else None,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if tls else None,
            backlog=_BACKLOG,
        )
        checking = asyncio.create_task(_check(traffic, tls))
        try:
            await stop.wait()
        finally:
            await _leave(traffic, server, listener, tls)
            checking.cancel()


def bounds(settings: IngressSettings) -> Bounds:
    return Bounds(
        head_bytes=settings.max_head_bytes,
        head_fields=settings.max_head_fields,
        head_seconds=settings.head_seconds,
        body_seconds=settings.body_seconds,
        silence_seconds=settings.silence_seconds,
        idle_seconds=settings.idle_seconds,
        connections=settings.max_connections,
    )


class Certificate:
    """A certificate and its key, and the TLS context that has them.

    New connections get the certificate that was read last; those that are open go on.
    """

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self._files = (cert_file, key_file)
        self._times = self._modified()
        self.context = _tls_context(*self._files)

    @classmethod
    def of(cls, settings: IngressSettings) -> "Certificate | None":
        """Return that of the settings, None if they have none. Raises ConfigError."""
        files = (settings.tls_cert_file, settings.tls_key_file)
        if not any(files):
            return None
        if not all(files):
            raise ConfigError(
                "[ingress] tls_cert_file and tls_key_file: give both, or none of them"
            )
        try:
            return cls(Path(files[0]), Path(files[1]))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"[ingress] tls_cert_file, tls_key_file: cannot be used ({_reason(error)}); "
                "give a certificate and its key as PEM, readable by this user"
            ) from error

    def read_if_changed(self) -> bool:
        """Read the files again if they changed; return whether they are used from now on.

        If they do not fit together, as between the writing of the two, go on with what there was.
        """
        modified = self._modified()
        if modified == self._times:
            return False
        self._times = modified
        try:
            # A pair that does not fit would spoil a context that is in use.
            _tls_context(*self._files)
            self.context.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            _log.error("the new certificate cannot be used", reason=_reason(error))
            return False
        _log.info("the certificate was read again")
        return True

    def _modified(self) -> Sequence[int]:
        return [_modified(file) for file in self._files]


def _modified(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "not PEM"
    return error.strerror or type(error).__name__


def _tls_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(cert_file, key_file)
    return context


async def _check(traffic: Traffic, tls: Certificate | None) -> None:
    """Look after the bounds of time, and after new certificates: one timer for all connections."""
    while True:
        await asyncio.sleep(_CHECK_SECONDS)
        _check_all(traffic)
        if tls is not None:
            tls.read_if_changed()


def _check_all(traffic: Traffic) -> None:
    now = time.perf_counter()
    for connection in list(traffic.connections):
        connection.check(now)


async def _leave(
    traffic: Traffic, server: asyncio.Server, listener: socket.socket, tls: Certificate | None
) -> None:
    began = time.monotonic()
    traffic.leaving = True
    drop_new(listener)
    server.close()
    await take_begun(traffic, listener, tls)
    while traffic.connections and time.monotonic() - began < _GRACE_SECONDS:
        await asyncio.sleep(_POLL_SECONDS)
        _check_all(traffic)
    tasks = [exchange.task for exchange in traffic.exchanges if exchange.task is not None]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
    for connection in list(traffic.connections):
        connection.transport.close()


async def take_begun(traffic: Traffic, listener: socket.socket, tls: Certificate | None) -> None:
    """Take the connections that had begun before `drop_new`; close the listener."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as opening:
        with listener, contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while True:
                    client, _ = await loop.sock_accept(listener)
                    opening.create_task(_open(traffic, client, tls))


async def _open(traffic: Traffic, client: socket.socket, tls: Certificate | None) -> None:
    with contextlib.suppress(OSError):
        _require_ttl(client, 0)
    with contextlib.suppress(OSError, TimeoutError):  # it has gone, or does not get through TLS
        async with asyncio.timeout(_GRACE_SECONDS):
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(traffic), client, ssl=tls.context if tls else None
            )


def _bind(bind: str) -> socket.socket:
    host, _, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, int(port)))
        listener.settimeout(0)
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"the ingress cannot listen on {bind} ({error.strerror}): "
            "free the address or set [ingress] bind to another"
        ) from error
    return listener


#: IP_MINTTL (linux/in.h) and IPV6_MINHOPCOUNT (linux/in6.h); Python does not name them.
_LEAST_TTL: Final = ((socket.IPPROTO_IP, 21), (socket.IPPROTO_IPV6, 73))
#: No router and no usual system sends with as much.
_LARGEST_TTL: Final = 255


def drop_new(listener: socket.socket) -> None:
    """Have the kernel drop the first packet of each new connection; only Linux does.

    The socket asks for a time to live that no packet has. What has begun goes on, but what is
    accepted from now on inherits that. A packet filter would need CAP_NET_ADMIN on newer kernels.
    """
    try:
        _require_ttl(listener, _LARGEST_TTL)
    except OSError as error:
        _log.warning("clients may be refused while this process ends", reason=error.strerror)


def _require_ttl(connection: socket.socket, least: int) -> None:
    if sys.platform == "linux":
        for level, option in _LEAST_TTL[: 1 if connection.family == socket.AF_INET else 2]:
            connection.setsockopt(level, option, least)
