"""`casewire send` against `requests`: the same bytes on the wire, the same end."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pytest

from casewire import hq_logins
from casewire.forwarder import Options, forward_all
from casewire.hq import Generation, Request
from tests.hq.client import Repeater
from tests.hq.logins import ApiKey, Basic, Bearer, ClientCredentials, Digest, Login

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


def answer(status: int, *headers: str, body: str = "") -> bytes:
    length = f"Content-Length: {len(body)}"
    lines = [f"HTTP/1.1 {status} Any", length, "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


TOKEN = answer(200, body='{"access_token": "t0ken", "token_type": "Bearer", "expires_in": 60}')


def challenge(nonce: str) -> bytes:
    return answer(
        401,
        'WWW-Authenticate: Basic realm="all, of them"',
        f'WWW-Authenticate: Digest realm="r", qop="auth", algorithm=SHA-256, nonce="sha{nonce}"',
        f'WWW-Authenticate: Digest realm="r", qop="auth", algorithm=MD5, nonce="md5{nonce}"',
    )


@dataclass(frozen=True, slots=True)
class Way:
    """One login by requests and by `casewire send`, for an address; what comes before 200."""

    theirs: Callable[[str], Login]
    ours: Callable[[str], hq_logins.Login]
    before: Sequence[bytes] = ()


def their_client(to: str, *, in_header: bool) -> Login:
    return ClientCredentials(
        client_id="hq é",
        client_secret="sé&cret",
        token_url=f"{to}/../oauth/token",
        in_header=in_header,
    )


def our_client(to: str, *, in_header: bool) -> hq_logins.Login:
    place = f"{to}/../oauth/token"
    return hq_logins.client_credentials(place, "hq é", "sé&cret", in_header=in_header)


BASIC = Way(lambda _: Basic("hqé", "sécret"), lambda _: hq_logins.basic("hqé", "sécret"))
WAYS: Mapping[str, Way] = {
    "basic": BASIC,
    "api-key": Way(lambda _: ApiKey("k", "X-Key"), lambda _: ("X-Key", "k")),
    "digest": Way(
        lambda _: Digest("hq", "sécret"),
        lambda _: hq_logins.Digest("hq", "sécret"),
        [challenge("1")],
    ),
    "bearer": Way(
        lambda _: Bearer("hq é", "sé&cret", https_only=False),
        lambda to: hq_logins.bearer(to, "hq é", "sé&cret"),
        [TOKEN],
    ),
    "oauth2": Way(
        partial(their_client, in_header=True), partial(our_client, in_header=True), [TOKEN]
    ),
    "oauth2-body": Way(
        partial(their_client, in_header=False), partial(our_client, in_header=False), [TOKEN]
    ),
}


def comparable(request: bytes) -> tuple[bytes, frozenset[bytes], bytes]:
    """Return request line, headers and body.

    The library's version, the port, the length of a body that is not there, and the number that
    requests draws for Digest with what follows from it, are left out.
    """
    head, _, body = request.partition(b"\r\n\r\n")
    head = re.sub(rb'(cnonce|response)="[0-9a-f]+"', rb"\1", head)
    first, *headers = head.split(b"\r\n")
    left_out = (b"host:", b"user-agent:", b"content-length: 0")
    return first, frozenset(h for h in headers if not h.lower().startswith(left_out)), body


async def by_both(
    payloads: Sequence[Request],
    answers: Sequence[bytes],
    generation: Generation = "B",
    way: Way = BASIC,
) -> tuple[list[str], list[str], Server, Server]:
    """Have both send the payloads one by one; return HQ's states and ours, and what came."""
    ends = {"success": "Succeeded", "empty": "Empty", "rejected": "Rejected"}
    theirs, ours = Server(answers), Server(answers)
    states, outcomes = [], []
    for server in (theirs, ours):
        async with await asyncio.start_server(server, "127.0.0.1", 0) as listener:
            to = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/api/v1/in/demo"
            if server is theirs:
                repeater = Repeater(url=to, login=way.theirs(to), generation=generation, scale=0)
                for payload in payloads:
                    records = await asyncio.to_thread(repeater.forward, [payload])
                    states += [record.state for record in records]
            else:
                options = Options(login=way.ours(to), generation=generation, scale=0)
                report = await forward_all(payloads, to, workers=1, options=options)
                outcomes += [ends.get(result.outcome, "Cancelled") for result in report.results]
    return list(states), outcomes, theirs, ours


@pytest.fixture(autouse=True)
def plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.mark.parametrize("name", WAYS)
async def test_casewire_send_puts_the_same_on_the_wire_as_requests(name: str) -> None:
    way = WAYS[name]
    answers = [*way.before, answer(200)] * len(PAYLOADS)
    _, _, theirs, ours = await by_both(PAYLOADS, answers, way=way)
    assert [comparable(each) for each in ours.came] == [comparable(each) for each in theirs.came]
    assert len(ours.came) == len(answers)


@pytest.mark.parametrize("name", ["bearer", "oauth2", "oauth2-body"])
@pytest.mark.parametrize(
    "refusal", [answer(401), answer(503, body="later"), answer(200, body='{"error": "no"}')]
)
async def test_both_give_up_after_three_tries_for_a_token(name: str, refusal: bytes) -> None:
    states, outcomes, theirs, ours = await by_both(PAYLOADS[:1], [refusal] * 4, way=WAYS[name])
    assert states == outcomes == ["Cancelled"]
    assert len(theirs.came) == len(ours.came) == 3


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (200, "Succeeded"),
        (301, "Succeeded"),
        (401, "Rejected"),
        (403, "Rejected"),
        (503, "Succeeded"),
    ],
)
async def test_both_answer_one_challenge_and_go_by_what_comes_then(status: int, state: str) -> None:
    second = challenge("2") if status == 401 else answer(status, "Location: /else")
    answers = [challenge("1"), second, challenge("3"), *[answer(200)] * 9]
    states, outcomes, theirs, ours = await by_both(PAYLOADS[:1], answers, way=WAYS["digest"])
    assert states == outcomes == [state]
    assert [comparable(each) for each in ours.came] == [comparable(each) for each in theirs.came]


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
