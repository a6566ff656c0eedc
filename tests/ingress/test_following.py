"""Which requests are followed, and what is handed on in `traceparent`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, strategies as st
from starlette.types import Message, Receive, Scope, Send

from ingress.following import FollowedPublisher, Timed
from ingress.publisher import Place
from ingress.records import Event
from schemas.envelope import Address, EventIds, captured_headers
from schemas.errors import UnavailableError
from schemas.tracing import Attributes, Kind, is_sampled, sampled, unsampled

pytestmark = pytest.mark.anyio

SENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ADDRESS = Address(domain="demo", label="", method="POST", path="/api/v1/in/demo", query="")


@dataclass
class Recorded:
    name: str
    parent: bytes
    links: Sequence[bytes]
    since_ns: int
    traceparent: bytes
    failed: str | None = None
    attributes: Attributes = field(default_factory=dict)

    def end(self, attributes: Attributes, *, failed: str = "") -> None:
        self.attributes, self.failed = attributes, failed


@dataclass
class Recorder:
    """Keeps spans; `wants` says whether a trace that begins is recorded."""

    wants: bool = True
    spans: list[Recorded] = field(default_factory=list)

    def wanted(self) -> bool:
        return self.wants

    def begin(
        self,
        name: str,
        kind: Kind,
        since_ns: int,
        *,
        parent: bytes = b"",
        links: Sequence[bytes] = (),
    ) -> Recorded:
        span = b"00-%032x-%016x-01" % (7, len(self.spans) + 1)
        self.spans.append(Recorded(name, parent, links, since_ns, span))
        return self.spans[-1]


@dataclass
class Shelf:
    """A publisher that keeps events, unless it is `full`."""

    full: bool = False
    events: list[Event] = field(default_factory=list)

    async def start(self) -> None: ...

    async def publish(self, event: Event) -> Place:
        if self.full:
            raise UnavailableError("full")
        self.events.append(event)
        return "spool"

    def ready(self) -> str | None:
        return None

    async def stop(self) -> None: ...


async def published(
    recorder: Recorder,
    shelf: Shelf,
    traceparent: bytes,
    *,
    continues: bool = False,
    traced: bool = True,
) -> None:
    """Publish an event with that trace context as the application does."""
    publisher = FollowedPublisher(shelf, recorder, "casewire.captured", continues=continues)
    event_id, time = EventIds().next()
    headers = captured_headers(event_id, time, ADDRESS, [("traceparent", traceparent)])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await publisher.publish(Event(event_id, headers, b""))

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None: ...

    sent = [(b"traceparent", traceparent)] if traced else []
    await Timed(app)({"headers": sent}, receive, send)


def handed_on(shelf: Shelf) -> bytes:
    return dict(shelf.events[-1].headers)["traceparent"]


async def test_a_request_is_two_spans_and_what_follows_goes_below_the_second() -> None:
    recorder, shelf = Recorder(), Shelf()
    await published(recorder, shelf, unsampled(SENT))
    request, sending = recorder.spans
    assert (request.name, sending.name) == ("POST /api/v1/in/{domain}", "send casewire.captured")
    assert (request.parent, request.links) == (b"", ())
    assert sending.parent == request.traceparent
    assert request.since_ns <= sending.since_ns
    assert handed_on(shelf) == sending.traceparent
    assert sending.attributes["casewire.stored"] == "spool"
    assert request.attributes["http.response.status_code"] == 200


async def test_an_event_that_is_not_stored_is_a_failed_span() -> None:
    recorder = Recorder()
    with pytest.raises(UnavailableError):
        await published(recorder, Shelf(full=True), unsampled(SENT))
    assert [span.failed for span in recorder.spans] == 2 * ["UnavailableError"]
    assert recorder.spans[0].attributes["http.response.status_code"] == 503


async def test_a_sender_decides_nothing_unless_he_is_trusted() -> None:
    recorder, shelf = Recorder(wants=False), Shelf()
    await published(recorder, shelf, SENT)
    assert (recorder.spans, handed_on(shelf)) == ([], unsampled(SENT))

    recorder = Recorder()
    await published(recorder, shelf, SENT)
    assert (recorder.spans[0].parent, recorder.spans[0].links) == (b"", (SENT,))

    recorder = Recorder(wants=False)
    await published(recorder, shelf, SENT, continues=True)
    assert (recorder.spans[0].parent, recorder.spans[0].links) == (SENT, ())

    recorder = Recorder()
    await published(recorder, shelf, unsampled(SENT), continues=True)
    assert (recorder.spans, handed_on(shelf)) == ([], unsampled(SENT))
    # The ingress' own context, of a request that came without one.
    await published(recorder, shelf, unsampled(SENT), continues=True, traced=False)
    assert (recorder.spans[0].parent, handed_on(shelf)) == (b"", recorder.spans[1].traceparent)


@given(st.binary(max_size=80))
def test_whatever_stands_in_the_header_says_yes_or_no(value: bytes) -> None:
    assert is_sampled(value) in (True, False)
    assert sampled([("traceparent", value)]) in (value, b"")


def test_the_flag_is_one_bit_of_several() -> None:
    assert is_sampled(SENT)
    assert is_sampled(SENT[:-2] + b"03")
    assert not is_sampled(unsampled(SENT))
    assert unsampled(SENT) == SENT[:-2] + b"00"
    assert sampled([("x", b""), ("traceparent", SENT)]) == SENT
    assert sampled([]) == b""
