"""An OTLP collector over HTTP, which keeps the spans that come."""

import gzip
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.servers import free_port


@dataclass(frozen=True, slots=True)
class Seen:
    """A span as it came; ids in hexadecimal."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    links: Sequence[str]
    attributes: Mapping[str, str | int]
    start: int
    end: int
    failed: bool


@dataclass
class Collector:
    """`texts` are all that came, as Protobuf's text."""

    port: int = field(default_factory=free_port)
    spans: list[Seen] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def of(self, event_id: str) -> Sequence[Seen]:
        """Return the spans of the trace to which an event's spans belong."""
        traces = {
            span.trace_id
            for span in self.spans
            if span.attributes.get("messaging.message.id") == event_id
        }
        return [span for span in self.spans if span.trace_id in traces]

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        told = ExportTraceServiceRequest.FromString(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.texts.append(str(told))
        for resource in told.resource_spans:
            about = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_seen(str(about["service.name"]), span) for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")


def _seen(service: str, span: Span) -> Seen:
    return Seen(
        service=service,
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=[link.span_id.hex() for link in span.links],
        attributes=_attributes(span.attributes),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        failed=bool(span.status.code),
    )


def _attributes(pairs: Iterable[KeyValue]) -> Mapping[str, str | int]:
    return {
        pair.key: pair.value.string_value
        if pair.value.HasField("string_value")
        else pair.value.int_value
        for pair in pairs
    }
