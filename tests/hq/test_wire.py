"""`casewire send` against `requests`: the same bytes on the wire, the same end."""

import asyncio
import re
from collections.abc import Sequence

import pytest

from casewire.forwarder import Options, forward_all
from casewire.hq import Generation, Request, basic
from tests.hq.client import Repeater
from tests.hq.logins import Basic

pytestmark = pytest.mark.anyio

PAYLOADS = (
    Request(
        kind="form_xml",
        body="<data>é</data>".encode(),
        content_type="text/xml",
        headers=(("received-on", "2026-11-22T10:00:00.000000Z"),),
        query="app_id=abc",
    ),
    Request(kind="custom", body=b"", content_type="application/json", label="odd name"),
    Request(kind="case_json", body=b"{}", content_type="application/json", method="DELETE"),
    Request(kind="case_json", body=b"{}", content_type="application/json", method="PUT"),
)


class Server:
    """Answers each request with the next of `answers` (bytes), and keeps what came."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.answers = list(answers)
        self.came: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        self.came.append(head + await reader.readexactly(int(length[1]) if length else 0))
        writer.write(self.answers.pop(0))
        await writer.drain()
        writer.close()


def answer(status: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Any", "Content-Length: 0", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def comparable(request: bytes) -> tuple[bytes, frozenset[bytes], bytes]:
    """Return request line, headers and body.

    The library's version, the port, and the length of a body that is not there are left out.
    """
    head, _, body = request.partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    left_out = (b"host:", b"user-agent:", b"content-length: 0")
    return first, frozenset(h for h in headers if not h.lower().startswith(left_out)), body


async def by_both(
    payloads: Sequence[Request], answers: Sequence[bytes], generation: Generation = "B"
) -> tuple[list[str], list[str], Server, Server]:
    """Have both send the payloads one by one; return HQ's states and ours, and what came."""
    ends = {"success": "Succeeded", "empty": "Empty", "rejected": "Rejected"}
    theirs, ours = Server(answers), Server(answers)
    states, outcomes = [], []
    for server in (theirs, ours):
        async with await asyncio.start_server(server, "127.0.0.1", 0) as listener:
            to = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/api/v1/in/demo"
            if server is theirs:
                repeater = Repeater(
                    url=to, login=Basic("hqé", "sécret"), generation=generation, scale=0
                )
                for payload in payloads:
                    records = await asyncio.to_thread(repeater.forward, [payload])
                    states += [record.state for record in records]
            else:
                options = Options(
                    credentials=basic("hqé", "sécret"), generation=generation, scale=0
                )
                report = await forward_all(payloads, to, workers=1, options=options)
                outcomes += [ends.get(result.outcome, "Cancelled") for result in report.results]
    return list(states), outcomes, theirs, ours


async def test_casewire_send_puts_the_same_on_the_wire_as_requests() -> None:
    _, _, theirs, ours = await by_both(PAYLOADS, [answer(200)] * len(PAYLOADS))
    assert [comparable(each) for each in ours.came] == [comparable(each) for each in theirs.came]
    assert len(ours.came) == len(PAYLOADS)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_both_follow_a_redirect_with_the_same_request(status: int, method: str) -> None:
    payload = Request(kind="x", body=b"{}", content_type="application/json", method=method)
    answers = [answer(status, "Location: /elsewhere?a=b"), answer(200)]
    states, outcomes, theirs, ours = await by_both([payload], answers)
    assert states == outcomes == ["Succeeded"]
    assert [comparable(each) for each in ours.came] == [comparable(each) for each in theirs.came]


@pytest.mark.parametrize("generation", ["A", "B"])
@pytest.mark.parametrize("status", [200, 202, 204, 304, 400, 401, 404, 413, 429, 500, 501, 503])
async def test_both_make_the_same_of_an_answer(status: int, generation: Generation) -> None:
    states, outcomes, theirs, ours = await by_both(PAYLOADS[:1], [answer(status)] * 7, generation)
    assert states == outcomes
    assert len(theirs.came) == len(ours.came)
