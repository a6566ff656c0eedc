"""OpenTelemetry: spans by its SDK, sent by OTLP over HTTP; imported only where it is configured."""

import contextlib
import os
import random
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from casewire.tables import read_secret
from schemas.errors import ConfigError
from schemas.settings import Table
from schemas.tracing import Attributes, Kind, Span, Tracer

if TYPE_CHECKING:
    from opentelemetry import trace

_SECONDS: Final = 5
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class TracingSettings(Table, frozen=True, kw_only=True):
    """`[tracing]`. Without an `endpoint`, the base of a collector's OTLP/HTTP, nothing is recorded.

    `sample_ratio` is the share of requests that are followed. `continue_incoming`: whether a trace
    that the sender has begun goes on here, recorded if he says so; else one begins here, linked to
    his. `headers_file` has a header a line (`name: value`) to send to the collector.
    """

    endpoint: Annotated[str, msgspec.Meta(pattern=r"^(https?://[^\s?#]+)?$")] = ""
    sample_ratio: Share = 0.01
    continue_incoming: bool = False
    headers: Mapping[str, str] = {}
    headers_file: str = ""


def with_headers(settings: TracingSettings, folder: Path, errors: list[str]) -> TracingSettings:
    """Return the settings with what their file holds, relative to `folder`, read into them."""
    if not settings.headers_file:
        return settings
    text = read_secret(folder / settings.headers_file, ("tracing", "headers_file"), errors)
    headers = dict(settings.headers)
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, value = line.partition(":")
        if not colon:
            errors.append("[tracing] headers_file: a line is no header; write NAME: VALUE")
        headers[name.strip().lower()] = value.strip()
    return msgspec.structs.replace(settings, headers=headers, headers_file="")


@contextlib.contextmanager
def tracing(settings: TracingSettings, role: str) -> Iterator[Tracer | None]:
    """Give what records spans of this process, None if nothing does; send the last at the end.

    Raises ConfigError if OpenTelemetry is not installed.
    """
    if not settings.endpoint:
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider, sampling  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "[tracing] endpoint: needs OpenTelemetry, which is not installed; "
            "install Casewire with its extra `tracing`, or remove the key"
        ) from error
    version = metadata.version("casewire")
    resource = Resource.create(
        {
            "service.name": f"casewire-{role}",
            "service.version": version,
            "service.instance.id": f"{socket.gethostname()}/{os.getpid()}",
        }
    )
    # What comes here is to be recorded; which of all that is, is decided before.
    provider = TracerProvider(sampler=sampling.ALWAYS_ON, resource=resource)
    exporter = OTLPSpanExporter(
        f"{settings.endpoint.rstrip('/')}/v1/traces", headers=settings.headers, timeout=_SECONDS
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield _OtelTracer(provider.get_tracer("casewire", version), settings.sample_ratio)
    finally:
        provider.shutdown()


class _OtelTracer:
    def __init__(
        self,
        tracer: "trace.Tracer",
        ratio: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        from opentelemetry import trace  # noqa: PLC0415

        self._trace = trace
        self._tracer = tracer
        self._ratio = ratio
        self._chance = chance
        self._kinds: Mapping[Kind, trace.SpanKind] = {
            "server": trace.SpanKind.SERVER,
            "producer": trace.SpanKind.PRODUCER,
            "consumer": trace.SpanKind.CONSUMER,
        }

    def wanted(self) -> bool:
        return self._chance() < self._ratio

    def begin(
        self,
        name: str,
        kind: Kind,
        since_ns: int,
        *,
        parent: bytes = b"",
        links: Sequence[bytes] = (),
    ) -> Span:
        trace = self._trace
        # Of an empty context: what else is under way in this process is no parent.
        above = trace.NonRecordingSpan(self._context(parent)) if parent else trace.INVALID_SPAN
        return _OtelSpan(
            self._tracer.start_span(
                name,
                trace.set_span_in_context(above),
                self._kinds[kind],
                links=[trace.Link(self._context(link)) for link in links],
                start_time=since_ns,
            )
        )

    def _context(self, traceparent: bytes) -> "trace.SpanContext":
        _, trace_id, span_id, flags = traceparent.decode().split("-")[:4]
        return self._trace.SpanContext(
            int(trace_id, 16),
            int(span_id, 16),
            is_remote=True,
            trace_flags=self._trace.TraceFlags(int(flags, 16)),
        )


class _OtelSpan:
    def __init__(self, span: "trace.Span") -> None:
        self._span = span

    @property
    def traceparent(self) -> bytes:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-01".encode()

    def end(self, attributes: Attributes, *, failed: str = "") -> None:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415

        self._span.set_attributes(dict(attributes))
        if failed:
            self._span.set_attribute("error.type", failed)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
