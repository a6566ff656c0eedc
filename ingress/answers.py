"""Every answer of the ingress, chosen by what HQ does with it (protocol.md §3).

HQ tries again after 503; 401, 405, 411 and 413 lose the event for good. HQ shows the text of each
answer to the users of its project space: it says what to do and quotes nothing of the request but
the name of the project space.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from starlette.types import Message, Send

from ingress.publisher import Place

ResponseHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]

Refusal: TypeAlias = Literal[
    "bad_address",
    "broken_http",
    "connections_full",
    "head_too_large",
    "in_flight_full",
    "length_required",
    "method_not_allowed",
    "not_found",
    "rate_exceeded",
    "shutting_down",
    "too_large",
    "too_slow",
    "unauthorized",
    "unavailable",
    "unexpected",
    "unknown_domain",
]
"""Why a request was not stored: the label of a metric."""

#: The methods that HQ forwards by; GET is its "Test connection".
STORING: Final = ("DELETE", "POST", "PUT")
METHODS: Final = ("GET", "HEAD", *STORING)


#: A header by which somebody learns from the answer to a GET whether a proxy lets underscores pass.
PROBE: Final = "casewire_probe"
SEEN: Final = "casewire-probe"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str
    headers: ResponseHeaders = ()
    content_type: bytes = b"text/plain; charset=utf-8"
    refusal: Refusal | None = None

    @property
    def body(self) -> bytes:
        return self.text.encode()

    @property
    def all_headers(self) -> ResponseHeaders:
        length = str(len(self.body)).encode()
        own = ((b"content-type", self.content_type), (b"content-length", length))
        return (*own, *self.headers)


def connection_works(domain: str) -> Answer:
    return Answer(200, f"Casewire takes what is forwarded for {domain} here.\n")


def probed(answer: Answer, headers: Iterable[tuple[bytes, bytes]]) -> Answer:
    """Return the answer to a GET with `SEEN` if the request has come with `PROBE`."""
    if any(name == PROBE.encode() for name, _ in headers):
        return replace(answer, headers=[*answer.headers, (SEEN.encode(), b"seen")])
    return answer


def too_large(max_bytes: int) -> Answer:
    sentence = f"The body is larger than {max_bytes} bytes: raise [ingress] max_body_bytes.\n"
    return Answer(413, sentence, refusal="too_large")


def unauthorized(challenges: ResponseHeaders) -> Answer:
    sentence = "The credentials are missing or wrong: enter those of this project space in HQ.\n"
    return Answer(401, sentence, challenges, refusal="unauthorized")


def unavailable(reason: str, refusal: Refusal = "unavailable") -> Answer:
    return Answer(503, f"Not stored, send it again later: {reason}.\n", refusal=refusal)


BAD_ADDRESS: Final = unavailable(
    "the address must be /api/v1/in/DOMAIN or /api/v1/in/DOMAIN/LABEL, "
    "with the project space in lower case",
    "bad_address",
)
UNKNOWN_DOMAIN: Final = unavailable(
    "the project space is not known here: add it to the configuration as [domains.NAME]",
    "unknown_domain",
)
IN_FLIGHT_FULL: Final = unavailable("too many requests are under way", "in_flight_full")
CONNECTIONS_FULL: Final = unavailable("too many connections are open", "connections_full")
RATE_EXCEEDED: Final = unavailable(
    "the project space forwards faster than [ingress] max_events_per_second allows",
    "rate_exceeded",
)
#: A slow network is nobody's fault that a 4xx would say is final.
TOO_SLOW: Final = unavailable("the request took too long to come", "too_slow")
SHUTTING_DOWN: Final = unavailable("the ingress is shutting down", "shutting_down")
UNEXPECTED: Final = unavailable("the ingress failed; its log tells why", "unexpected")

BROKEN_HTTP: Final = Answer(400, "The request is not HTTP/1.1.\n", refusal="broken_http")
HEAD_TOO_LARGE: Final = Answer(
    400, "The request's headers are too many or too large.\n", refusal="head_too_large"
)
METHOD_NOT_ALLOWED: Final = Answer(
    405,
    "Forward by POST, PUT or DELETE.\n",
    [(b"allow", ", ".join(METHODS).encode())],
    refusal="method_not_allowed",
)
LENGTH_REQUIRED: Final = Answer(
    411,
    "The request has neither Content-Length nor Transfer-Encoding.\n",
    refusal="length_required",
)
NOT_FOUND: Final = Answer(
    404, "Nothing is here: forward to /api/v1/in/DOMAIN.\n", refusal="not_found"
)


async def respond(send: Send, answer: Answer) -> None:
    headers = answer.all_headers
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def respond_stored(send: Send, event_id: str, place: Place) -> None:
    """Send the receipt of a durable event."""
    await send(_RECEIPT_STARTS[place])
    receipt = f'{{"id": "{event_id}", "stored": "{place}"}}'.encode()
    await send({"type": "http.response.body", "body": receipt})


def _receipt_start(place: Place) -> Message:
    length = len(f'{{"id": "{"-" * 36}", "stored": "{place}"}}')
    headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % length))
    return {"type": "http.response.start", "status": 200, "headers": headers}


_RECEIPT_STARTS: Final[Mapping[Place, Message]] = {
    "kafka": _receipt_start("kafka"),
    "spool": _receipt_start("spool"),
}
