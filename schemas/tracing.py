"""Traces as the stages see them: begun, ended, and handed on in the header `traceparent`.

What records them is behind `Tracer` (casewire/tracing.py). Without one nothing of this is called.
W3C Trace Context, version 00; OpenTelemetry's semantic conventions for HTTP and messaging.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol, TypeAlias

TRACEPARENT: Final = "traceparent"
_FLAGS: Final = slice(53, 55)

Kind: TypeAlias = Literal["server", "producer", "consumer"]
Attributes: TypeAlias = Mapping[str, str | int]


class Span(Protocol):
    """What is being done for one event. `traceparent` is for what follows from it."""

    @property
    def traceparent(self) -> bytes: ...

    def end(self, attributes: Attributes, *, failed: str = "") -> None:
        """Record it; `failed` is the class or cause of what went wrong."""


class Tracer(Protocol):
    def wanted(self) -> bool:
        """Return whether a trace that begins now is one of those to record."""

    def begin(
        self,
        name: str,
        kind: Kind,
        since_ns: int,
        *,
        parent: bytes = b"",
        links: Sequence[bytes] = (),
    ) -> Span:
        """Begin a span that began at `since_ns` (since 1970), below `parent` or as a trace.

        `parent` and `links` are valid values of `traceparent`.
        """


def sampled(headers: Sequence[tuple[str, bytes]]) -> bytes:
    """Return the trace context in headers, if what follows from them is to be recorded."""
    for name, value in headers:
        if name == TRACEPARENT:
            return value if is_sampled(value) else b""
    return b""


def is_sampled(traceparent: bytes) -> bool:
    try:
        return bool(int(traceparent[_FLAGS], 16) & 1)
    except ValueError:
        return False


def unsampled(traceparent: bytes) -> bytes:
    """Return a trace context that has nothing recorded of what follows from it."""
    return traceparent[: _FLAGS.start] + b"00" + traceparent[_FLAGS.stop :]


def continued(
    headers: Sequence[tuple[str, bytes]], traceparent: bytes
) -> Sequence[tuple[str, bytes]]:
    """Return headers with another trace context in the same place."""
    return [(name, traceparent if name == TRACEPARENT else value) for name, value in headers]
