"""Every answer of the ingress, chosen by what HQ does with it (protocol.md §3).

HQ tries again after 503; 401, 405, 411 and 413 lose the event for good.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from starlette.types import Send

ResponseHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]

METHODS: Final = ("DELETE", "GET", "HEAD", "POST", "PUT")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str
    headers: ResponseHeaders = ()
    content_type: bytes = b"text/plain; charset=utf-8"


def stored(event_id: str) -> Answer:
    receipt = f'{{"id": "{event_id}", "stored": "kafka"}}'
    return Answer(200, receipt, content_type=b"application/json")


def connection_works(domain: str) -> Answer:
    return Answer(200, f"Casewire takes what is forwarded for {domain} here.\n")


def too_large(max_bytes: int) -> Answer:
    return Answer(
        413, f"The body is larger than {max_bytes} bytes: raise [ingress] max_body_bytes.\n"
    )


def unauthorized(challenges: ResponseHeaders) -> Answer:
    sentence = "The credentials are missing or wrong: enter those of this project space in HQ.\n"
    return Answer(401, sentence, challenges)


def unavailable(reason: str) -> Answer:
    return Answer(503, f"Not stored, send it again later: {reason}.\n")


BAD_ADDRESS: Final = unavailable(
    "the address must be /api/v1/in/DOMAIN or /api/v1/in/DOMAIN/LABEL, "
    "with the project space in lower case"
)
UNKNOWN_DOMAIN: Final = unavailable(
    "the project space is not known here: add it to the configuration as [domains.NAME]"
)
IN_FLIGHT_FULL: Final = unavailable("too many requests are under way")
SHUTTING_DOWN: Final = unavailable("the ingress is shutting down")
UNEXPECTED: Final = unavailable("the ingress failed; its log tells why")

HEAD_TOO_LARGE: Final = Answer(400, "The request's headers are too large.\n")
METHOD_NOT_ALLOWED: Final = Answer(
    405, "Forward by POST, PUT or DELETE.\n", [(b"allow", ", ".join(METHODS).encode())]
)
LENGTH_REQUIRED: Final = Answer(
    411, "The request has neither Content-Length nor Transfer-Encoding.\n"
)
NOT_FOUND: Final = Answer(404, "Nothing is here: forward to /api/v1/in/DOMAIN.\n")


async def respond(send: Send, answer: Answer) -> None:
    body = answer.text.encode()
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", str(len(body)).encode()),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
