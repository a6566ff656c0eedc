"""Each way of HQ's to prove who it is, by HQ's own libraries over real HTTP (protocol.md §2)."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

import pytest
import requests
from oauthlib.oauth2 import OAuth2Error

from casewire.hq import Request
from ingress import answers
from ingress.auth import Credential, Kind, policy
from ingress.secrets_store import ha1_text, scrypt_text, sha256_text
from ingress.tokens import Keys
from tests.hq.client import Repeater
from tests.hq.logins import (
    Anyone,
    ApiKey,
    Basic,
    Bearer,
    ClientCredentials,
    Digest,
    Login,
    PasswordGrant,
)
from tests.ingress.conftest import StartRig
from tests.ingress.rig import Rig

pytestmark = pytest.mark.anyio

MADE = "5a" * 32
CHOSEN = "pässwörd"
BODY = b"x" * 100_000


@dataclass(frozen=True, slots=True)
class Way:
    """A credential's kind and stored secret, and HQ's login for a secret, given the origin.

    `refused` is the status of a forward with a wrong secret; None if HQ gets no token for it.
    """

    kind: Kind
    stored: str
    secret: str
    login: Callable[[str, str], Login]
    challenges: str
    refused: int | None = 401


def oauth2(secret: str, origin: str, *, in_header: bool) -> Login:
    return ClientCredentials(
        client_id="hqé",
        client_secret=secret,
        token_url=f"{origin}/oauth/token",
        in_header=in_header,
        scope="a b",
    )


def password_grant(secret: str, origin: str, *, in_header: bool) -> Login:
    return PasswordGrant(
        username="hqé",
        password=secret,
        client_id="any",
        client_secret="one",
        token_url=f"{origin}/api/v1/token",
        in_header=in_header,
    )


BASIC = 'Basic realm="casewire", charset="UTF-8"'
BEARER = 'Bearer realm="casewire"'
DIGEST = 'Digest realm="casewire", qop="auth", algorithm=MD5'
WAYS: Mapping[str, Way] = {
    "basic-plain": Way("basic", CHOSEN, CHOSEN, lambda s, _: Basic("hqé", s), BASIC),
    "basic-sha256": Way("basic", sha256_text(MADE), MADE, lambda s, _: Basic("hqé", s), BASIC),
    "basic-scrypt": Way("basic", scrypt_text(CHOSEN), CHOSEN, lambda s, _: Basic("hqé", s), BASIC),
    "digest-ha1": Way(
        "digest", ha1_text("hqé", CHOSEN), CHOSEN, lambda s, _: Digest("hqé", s), DIGEST
    ),
    "digest-plain": Way("digest", CHOSEN, CHOSEN, lambda s, _: Digest("hqé", s), DIGEST),
    "api-key": Way(
        "api-key", "Bearer abc", "Bearer abc", lambda s, _: ApiKey(s), 'ApiKey realm="casewire"'
    ),
    "bearer": Way(
        "bearer",
        scrypt_text(CHOSEN),
        CHOSEN,
        lambda s, _: Bearer("hqé", s, https_only=False),
        BEARER,
        None,
    ),
    "oauth2-header": Way(
        "oauth2", sha256_text(MADE), MADE, lambda s, at: oauth2(s, at, in_header=True), BEARER, None
    ),
    "oauth2-body": Way(
        "oauth2",
        scrypt_text(MADE),
        MADE,
        lambda s, at: oauth2(s, at, in_header=False),
        BEARER,
        None,
    ),
    "password-header": Way(
        "bearer", CHOSEN, CHOSEN, lambda s, at: password_grant(s, at, in_header=True), BEARER, None
    ),
    "password-body": Way(
        "bearer", CHOSEN, CHOSEN, lambda s, at: password_grant(s, at, in_header=False), BEARER, None
    ),
}


@pytest.fixture(autouse=True)
def plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """oauthlib refuses plain HTTP unless it is told not to."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


def origin(rig: Rig) -> str:
    return f"http://127.0.0.1:{rig.port}"


def send(
    rig: Rig, login: Login, body: bytes | None = BODY, domain: str = "demo"
) -> requests.Response:
    """Forward as HQ does, or test the connection; with a new session each time."""
    with login.session() as session:
        url = f"{origin(rig)}/api/v1/in/{domain}"
        if body is None:
            return session.get(url, headers={"Accept": "application/json"}, timeout=30)
        headers = {"Content-Type": "text/xml"}
        return session.post(f"{url}?app_id=a%20b", data=body, headers=headers, timeout=30)


@pytest.mark.parametrize("name", WAYS)
async def test_the_right_secret_is_taken_and_the_event_stored_once(
    start: StartRig, name: str
) -> None:
    way = WAYS[name]
    credential = Credential(
        name=name, domains=("demo",), kind=way.kind, username="hqé", secret=way.stored
    )
    rig = await start(domains=("demo", "open"), credentials=[credential])
    right = way.login(way.secret, origin(rig))
    tested = await asyncio.to_thread(send, rig, right, None)
    assert (tested.status_code, tested.text) == (200, answers.connection_works("demo").text)
    stored = await asyncio.to_thread(send, rig, right)
    assert stored.status_code == 200
    refused = await asyncio.to_thread(send, rig, Anyone())
    assert refused.status_code == 401
    assert way.challenges in refused.headers["WWW-Authenticate"]
    wrong = way.login("wrong", origin(rig))
    if way.refused is None:
        with pytest.raises((OAuth2Error, requests.RequestException)):
            await asyncio.to_thread(send, rig, wrong)
    else:
        answer = await asyncio.to_thread(send, rig, wrong)
        assert (answer.status_code, answer.text) == (401, refused.text)
    (record,) = (await rig.captured()).values()
    assert record.value == BODY
    assert way.secret.encode() not in b"".join(value for _, value in record.headers)
    labels = {"credential": name}
    assert rig.registry.get_sample_value("casewire_ingress_credential_uses_total", labels) == 2


@dataclass(slots=True)
class Doubling:
    """A proxy that sends the first request with credentials twice, and returns the last answer."""

    rig: Rig
    doubled: bool = False

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                request = await message(reader)
                answer = await self._passed_on(request)
                if b"Authorization: Digest" in request and not self.doubled:
                    self.doubled = True
                    answer = await self._passed_on(request)
                writer.write(answer)
        writer.close()

    async def _passed_on(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.rig.port)
        writer.write(request)
        answer = await message(reader)
        writer.close()
        return answer


async def message(reader: asyncio.StreamReader) -> bytes:
    """Read a request or an answer that says its length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].split()[0]
    return head + await reader.readexactly(int(length))


async def test_a_digest_payload_that_a_proxy_doubles_is_not_rejected(start: StartRig) -> None:
    """A second 401 would be: requests answers one challenge for each request."""
    credential = Credential(
        name="d", domains=("demo",), kind="digest", username="hq", secret="digest"
    )
    rig = await start(credentials=[credential])
    proxy = Doubling(rig)
    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/api/v1/in/demo"
        repeater = Repeater(url=url, login=Digest("hq", "digest"), scale=0)
        payload = Request(kind="other", body=b"x", content_type="text/xml")
        [record] = await asyncio.to_thread(repeater.forward, [payload])
    assert proxy.doubled
    assert [attempt.status for attempt in record.attempts] == [503, 200]
    assert "new challenge" in record.attempts[0].text
    assert record.state == "Succeeded"
    assert [stored.value for stored in (await rig.captured()).values()] == [b"x", b"x"]


async def test_a_domain_without_a_credential_is_open_whatever_is_sent(start: StartRig) -> None:
    credential = Credential(name="x", domains=("demo",), kind="api-key", secret="abc")
    rig = await start(domains=("demo", "open"), credentials=[credential])
    for login in (Anyone(), Basic("a", "b"), Digest("a", "b"), ApiKey("x")):
        answer = await asyncio.to_thread(send, rig, login, b"x", "open")
        assert answer.status_code == 200


async def test_all_kinds_side_by_side_each_with_its_challenge(start: StartRig) -> None:
    """requests must find the Digest challenge among the others."""
    kinds: list[Kind] = ["basic", "digest", "api-key", "bearer"]
    credentials = [
        Credential(name=kind, domains=("demo",), kind=kind, username="hq", secret=kind)
        for kind in kinds
    ]
    rig = await start(credentials=credentials)
    for login in (
        Basic("hq", "basic"),
        Digest("hq", "digest"),
        ApiKey("api-key"),
        Bearer("hq", "bearer", https_only=False),
    ):
        assert (await asyncio.to_thread(send, rig, login)).status_code == 200
    for login in (Digest("hq", "basic"), Basic("hq", "digest"), ApiKey("basic")):
        assert (await asyncio.to_thread(send, rig, login)).status_code == 401


async def test_rotation_loses_nothing_while_policies_change_under_load(start: StartRig) -> None:
    """Old and new secret are sent all the time, while the policy is replaced a hundred times.

    Each policy knows both keys, as each does until the last token of an old key has expired.
    """

    def secret_of(name: str, secret: str) -> Credential:
        return Credential(
            name=name, domains=("demo",), kind="basic", username="hq", secret=sha256_text(secret)
        )

    old, new = secret_of("old", "1" * 64), secret_of("new", "2" * 64)
    client = Credential(
        name="client", domains=("demo",), kind="oauth2", username="id", secret=sha256_text(MADE)
    )
    rig = await start(credentials=[old, new, client])
    keys = (Keys.of(b"another", b"a key"), Keys.of(b"a key", b"another"))
    stopped = asyncio.Event()
    sent = count()

    async def keep_sending(login: Login) -> set[int]:
        found = set()
        while not stopped.is_set():
            found.add((await asyncio.to_thread(send, rig, login, b"x")).status_code)
            next(sent)
        return found

    client_login = ClientCredentials(
        client_id="id", client_secret=MADE, token_url=f"{origin(rig)}/oauth/token", in_header=True
    )
    logins: list[Login] = [Basic("hq", "1" * 64), Basic("hq", "2" * 64), client_login]
    sending = [asyncio.create_task(keep_sending(login)) for login in logins]
    for number in range(100):
        order = [old, new, client] if number % 2 else [client, new, old]
        rig.access.replace(policy(["demo"], order, keys[number % 2]))
        await asyncio.sleep(0.01)
    stopped.set()
    assert set().union(*await asyncio.gather(*sending)) == {200}
    assert len(await rig.captured()) == next(sent)
    rig.access.replace(policy(["demo"], [new, client], keys[0]))
    assert (await asyncio.to_thread(send, rig, logins[0])).status_code == 401
    assert (await asyncio.to_thread(send, rig, logins[1])).status_code == 200
