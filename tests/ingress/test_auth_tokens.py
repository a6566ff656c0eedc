"""Access tokens, Digest nonces and their keys: what is judged 401, and what 503."""

import asyncio
import base64
import contextlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given, strategies as st
from prometheus_client import CollectorRegistry
from requests.auth import HTTPDigestAuth
from starlette.types import Message

from ingress.access import Access, Proven
from ingress.attempts import BURST, Used
from ingress.auth import Credential, policy
from ingress.secrets_store import ha1_text, scrypt_text, sha256_text
from ingress.token_endpoint import TokenEndpoint
from ingress.tokens import (
    NONCE_SECONDS,
    TOKEN_SECONDS,
    Key,
    Keys,
    Token,
    binding,
    make_key_file,
    nonce_state,
    read_keys,
    read_token,
    sign_nonce,
    sign_token,
)
from schemas.errors import UnavailableError

pytestmark = pytest.mark.anyio

OLD_KEY = b"the old key"
NEW_KEY = b"the new key"
SECRET = "0f" * 32
CLIENT = Credential(
    name="client", domains=("demo",), kind="oauth2", username="id", secret=sha256_text(SECRET)
)
PHONE = Credential(
    name="phone", domains=("demo",), kind="bearer", username="hq", secret=scrypt_text("chosen")
)
DIGEST = Credential(
    name="digest", domains=("demo",), kind="digest", username="zoë", secret=ha1_text("zoë", "pß")
)
OTHER = Credential(name="other", domains=("two",), kind="bearer", username="x", secret="y")
ALL = (CLIENT, PHONE, DIGEST, OTHER)


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def gate(clock: Clock, *credentials: Credential, keys: Keys | None = None) -> Access:
    rules = policy(["demo", "two"], credentials or ALL, keys or Keys.of(NEW_KEY, OLD_KEY))
    return Access(rules, CollectorRegistry(), clock=clock)


async def judged(
    access: Access, value: bytes, domain: str = "demo", query: bytes = b""
) -> tuple[int, list[str]]:
    scope: dict[str, Any] = {
        "method": "POST",
        "headers": [(b"authorization", value)] if value else [],
        "client": ("10.0.0.1", 1),
        "raw_path": b"/api/v1/in/" + domain.encode(),
        "query_string": query,
    }
    answer = await access.refusal(domain, scope)
    if answer is None:
        return 200, []
    return answer.status, [value.decode() for name, value in answer.headers]


async def token_of(access: Access) -> str:
    verdict, token = await access.token("client_credentials", [(b"id", SECRET.encode())], "")
    assert isinstance(verdict, Proven)
    return token


async def bearer(access: Access, token: str, domain: str = "demo") -> int:
    return (await judged(access, b"Bearer " + token.encode(), domain))[0]


async def test_a_token_is_good_for_its_domains_until_it_expires_and_never_a_refusal() -> None:
    clock = Clock()
    access = gate(clock)
    token = await token_of(access)
    assert await bearer(access, token) == 200
    assert await bearer(access, token, "two") == 401
    clock.now += TOKEN_SECONDS - 1
    assert await bearer(access, token) == 200
    clock.now += 1
    assert await bearer(access, token) == 503
    clock.now -= 10 * TOKEN_SECONDS
    assert await bearer(access, token) == 200, "a clock that was put back"


async def test_what_was_a_good_token_before_a_change_is_answered_503() -> None:
    clock = Clock()
    access = gate(clock)
    token = await token_of(access)
    changed = Credential(
        name="client", domains=("demo",), kind="oauth2", username="id", secret=sha256_text("else")
    )
    for credentials, keys in (
        ((changed, PHONE), Keys.of(NEW_KEY)),
        ((PHONE,), Keys.of(NEW_KEY)),
        ((CLIENT, PHONE), Keys.of(OLD_KEY)),
    ):
        access.replace(policy(["demo"], credentials, keys))
        assert await bearer(access, token) == 503
    access.replace(policy(["demo"], [CLIENT], Keys.of(b"newest", NEW_KEY)))
    assert await bearer(access, token) == 200


async def test_keys_in_rotation_the_first_signs_and_all_verify() -> None:
    access = gate(Clock(), keys=Keys.of(OLD_KEY))
    token = await token_of(access)
    access.replace(policy(["demo"], ALL, Keys.of(NEW_KEY, OLD_KEY)))
    assert await bearer(access, token) == 200
    newer = await token_of(access)
    assert isinstance(read_token(Keys.of(NEW_KEY), newer.encode()), Token)
    assert read_token(Keys.of(OLD_KEY), newer.encode()) == "unknown"


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_token_with_any_byte_changed_is_none_of_ours(place: int, change: int) -> None:
    keys = Keys.of(NEW_KEY)
    assert keys.signing is not None
    text = sign_token(keys.signing, Token("client", binding("x"), 10**10)).removeprefix("cw1.")
    content = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    content[place % len(content)] ^= change
    changed = b"cw1." + base64.urlsafe_b64encode(bytes(content)).rstrip(b"=")
    assert read_token(keys, changed) == ("unknown" if place % len(content) < 4 else None)


@given(name=st.text(st.characters(codec="ascii", categories=("L", "N")), max_size=80))
def test_a_token_says_what_was_signed(name: str) -> None:
    token = Token(name, binding(name), 1_900_000_000)
    text = sign_token(Key.of(NEW_KEY), token)
    assert read_token(Keys.of(NEW_KEY), text.encode()) == token
    assert re.fullmatch(r"[A-Za-z0-9._-]+", text)


def digest_header(
    challenge: str,
    *,
    uri: str = "/api/v1/in/demo",
    password: str = "pß",  # noqa: S107
    method: str = "POST",
) -> bytes:
    """Answer a challenge with requests' own code."""
    auth: Any = HTTPDigestAuth("zoë", password)
    auth.init_per_thread_state()
    auth._thread_local.chal = {
        name: quoted or plain
        for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', challenge)
    }
    header: str = auth.build_digest_header(method, f"http://h{uri}")
    return header.encode("latin-1")


async def challenges(access: Access) -> list[str]:
    status, sent = await judged(access, b"")
    assert status == 401
    return [each for each in sent if each.startswith("Digest")]


async def test_digest_by_md5_and_by_sha_256() -> None:
    access = gate(Clock())
    offered = await challenges(access)
    assert [re.findall("algorithm=([^,]+)", each) for each in offered] == [["SHA-256"], ["MD5"]]
    for challenge in offered:
        assert (await judged(access, digest_header(challenge)))[0] == 200
        assert (await judged(access, digest_header(challenge, password="x")))[0] == 401
        assert (await judged(access, digest_header(challenge, method="GET")))[0] == 401
        query = digest_header(challenge, uri="/api/v1/in/demo?app_id=a%20b")
        assert (await judged(access, query, query=b"app_id=a%20b"))[0] == 200


async def test_digest_md5_only_for_a_secret_that_has_no_sha_256() -> None:
    short = Credential(
        name="d", domains=("demo",), kind="digest", username="zoë", secret=DIGEST.secret[:36]
    )
    access = gate(Clock(), short)
    (challenge,) = await challenges(access)
    assert (await judged(access, digest_header(challenge)))[0] == 200


BROKEN: Mapping[str, tuple[str, str, int]] = {
    "no realm": (r'realm="casewire"', 'realm="other"', 401),
    "count of nothing": ("nc=00000001", "nc=00000000", 401),
    "bad count": ("nc=00000001", "nc=1", 401),
    "other protection": ('qop="auth"', 'qop="auth-int"', 401),
    "other user": ("zo", "za", 401),
    "other algorithm": ('algorithm="MD5"', 'algorithm="SHA-512"', 401),
    "mixed algorithm": ('algorithm="MD5"', 'algorithm="SHA-256"', 401),
    "forged nonce": (r'nonce="([^"]{30})..', r'nonce="\1AA', 401),
    "nonce of another key": ('nonce="...', 'nonce="AAA', 503),
    "no nonce": (r'nonce="[^"]+"', 'nonce=""', 401),
    "no response": (r'response="[^"]+"', "", 401),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_digest_that_is_not_right(name: str) -> None:
    pattern, other, expected = BROKEN[name]
    access = gate(Clock())
    header = digest_header((await challenges(access))[-1]).decode("latin-1")
    changed, times = re.subn(rf"(?<!c){pattern}", other, header, count=1)
    assert times == 1
    assert (await judged(access, changed.encode("latin-1")))[0] == expected


async def test_digest_for_another_address_may_be_a_proxys_doing() -> None:
    access = gate(Clock())
    (*_, challenge) = await challenges(access)
    assert (await judged(access, digest_header(challenge, uri="/else")))[0] == 503
    assert (await judged(access, digest_header(challenge, uri="/else", password="x")))[0] == 401
    none = digest_header(challenge, uri="//[/api/v1/in/demo")
    assert (await judged(access, none))[0] == 503
    spelt = digest_header(challenge, uri="/api/v1/in/d%65mo")
    assert (await judged(access, spelt))[0] == 200


async def test_an_old_nonce_is_stale_and_one_of_a_clock_ahead_is_our_own_fault() -> None:
    clock = Clock()
    access = gate(clock)
    (*_, challenge) = await challenges(access)
    right, wrong = digest_header(challenge), digest_header(challenge, password="x")
    clock.now += NONCE_SECONDS + 1
    status, sent = await judged(access, right)
    assert status == 401
    assert all("stale=true" in each for each in sent if each.startswith("Digest"))
    fresh = next(each for each in sent if "MD5" in each)
    assert (await judged(access, digest_header(fresh)))[0] == 200
    status, sent = await judged(access, wrong)
    assert status == 401
    assert not [each for each in sent if "stale" in each]
    clock.now -= 3 * NONCE_SECONDS
    assert (await judged(access, right))[0] == 503


async def test_a_digest_that_comes_again_is_neither_taken_nor_refused() -> None:
    access = gate(Clock())
    (*_, challenge) = await challenges(access)
    first, second = digest_header(challenge), digest_header(challenge)
    assert (await judged(access, first))[0] == 200
    assert (await judged(access, second))[0] == 200, "payloads of one second share a nonce"
    pattern = rb'response="([0-9a-f]+)"'
    louder = re.sub(pattern, lambda found: b'response="%b"' % found[1].upper(), first)
    for again in (first, second, louder, first.replace(b", ", b" ,  ")):
        assert (await judged(access, again))[0] == 503
    other_process = gate(Clock())
    assert (await judged(other_process, first))[0] == 200, "processes share no memory"


@given(st.integers(1, 20), st.lists(st.integers(0, 60), max_size=200))
def test_at_least_the_last_proofs_are_remembered_and_memory_is_bounded(
    size: int, keys: list[int]
) -> None:
    used = Used(size)
    news: list[int] = []
    for key in keys:
        new = used.first(b"%d" % key)
        assert not (new and key in news[-size:])
        assert new or key in news[-2 * size :]
        if new:
            news.append(key)
        assert len(used._newer) + len(used._older) <= 2 * size


async def test_wrong_digests_are_limited_and_right_ones_do_not_count() -> None:
    access = gate(Clock())
    (*_, challenge) = await challenges(access)
    found = [(await judged(access, digest_header(challenge)))[0] for _ in range(2 * BURST)]
    assert set(found) == {200}
    wrong = digest_header(challenge, password="x")
    found = [(await judged(access, wrong))[0] for _ in range(BURST + 2)]
    assert found[:BURST] == [401] * BURST
    assert found[-1] == 503


@given(st.binary(max_size=80))
def test_no_nonce_is_made_up(content: bytes) -> None:
    keys = Keys.of(NEW_KEY)
    text = base64.urlsafe_b64encode(content).decode().rstrip("=")
    assert nonce_state(keys, text, 0) in ("forged", "unknown")
    assert nonce_state(keys, sign_nonce(Key.of(NEW_KEY), 5), 5) == "good"


def test_of_many_processes_one_makes_the_key_file_and_all_read_it(tmp_path: Path) -> None:
    file = tmp_path / "token.key"

    def start(_: int) -> Keys:
        make_key_file(file)
        return read_keys(file)

    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(start, range(64)))
    assert len({keys.signing for keys in found}) == 1
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"abc\n", b"\xff\n", b"0f" * 31])
def test_a_key_file_that_is_wrong_is_said_to_be(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token.key"
    with pytest.raises(UnavailableError, match="cannot be read"):
        read_keys(file)
    file.write_bytes(content)
    with pytest.raises(UnavailableError, match=r"token\.key"):
        read_keys(file)
    with pytest.raises(UnavailableError, match="cannot be written"):
        make_key_file(tmp_path / "none" / "token.key")


async def post(
    access: Access,
    body: bytes | Mapping[str, str],
    headers: list[tuple[bytes, bytes]] | None = None,
    method: str = "POST",
) -> tuple[int, Mapping[bytes, bytes], dict[str, Any]]:
    """Ask the token end point, as ASGI does."""
    content = body if isinstance(body, bytes) else urlencode(body).encode()
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": "/oauth/token", "headers": headers or [],
        "client": ("10.0.0.1", 1),
    }  # fmt: skip
    await TokenEndpoint(access, lambda _: None)(scope, receive, send)
    answer: dict[str, Any] = {}
    with contextlib.suppress(orjson.JSONDecodeError):
        answer = orjson.loads(sent[1]["body"])
    return sent[0]["status"], dict(sent[0]["headers"]), answer


def client_header(pair: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Basic " + base64.b64encode(pair.encode()))]


RIGHT = {"grant_type": "client_credentials", "client_id": "id", "client_secret": SECRET}


@pytest.mark.parametrize(
    ("form", "headers", "credential"),
    [
        (RIGHT, [], "client"),
        (RIGHT | {"scope": "a b"}, [], "client"),
        ({"grant_type": "client_credentials"}, client_header(f"id:{SECRET}"), "client"),
        ({"grant_type": "client_credentials"}, client_header(f"%69d:{SECRET}"), "client"),
        ({"grant_type": "password", "username": "hq", "password": "chosen"}, [], "phone"),
        (
            {"grant_type": "password", "username": "hq", "password": "chosen", "client_id": "x"},
            client_header("any:client"),
            "phone",
        ),
    ],
)
async def test_a_grant_gives_a_token_and_no_refresh_token(
    form: dict[str, str], headers: list[tuple[bytes, bytes]], credential: str
) -> None:
    access = gate(Clock())
    status, sent, answer = await post(access, form, headers)
    assert status == 200
    assert set(answer) == {"access_token", "token_type", "expires_in"}
    assert answer["token_type"] == "Bearer"
    assert answer["expires_in"] == TOKEN_SECONDS
    assert sent[b"cache-control"] == b"no-store"
    token = read_token(access.policy.keys, answer["access_token"].encode())
    assert isinstance(token, Token)
    assert token.credential == credential
    assert await bearer(access, answer["access_token"]) == 200


@pytest.mark.parametrize(
    ("form", "headers", "status", "error"),
    [
        (RIGHT | {"client_secret": "x"}, [], 401, "invalid_client"),
        (RIGHT | {"client_id": "x"}, [], 401, "invalid_client"),
        ({"grant_type": "client_credentials"}, [], 401, "invalid_client"),
        (RIGHT, client_header("id:wrong"), 401, "invalid_client"),
        (RIGHT, [(b"authorization", b"Bearer x")], 401, "invalid_client"),
        ({"grant_type": "password", "username": "hq"}, [], 401, "invalid_grant"),
        (
            {"grant_type": "password", "username": "id", "password": SECRET},
            [],
            401,
            "invalid_grant",
        ),
        ({"grant_type": "refresh_token"}, [], 400, "unsupported_grant_type"),
        ({}, [], 400, "invalid_request"),
        ({"grant_type": "x" * 20_000}, [], 400, "invalid_request"),
    ],
)
async def test_what_is_no_grant(
    form: dict[str, str], headers: list[tuple[bytes, bytes]], status: int, error: str
) -> None:
    found, sent, answer = await post(gate(Clock()), form, headers)
    assert (found, answer["error"]) == (status, error)
    assert (b"www-authenticate" in sent) == (status == 401)


async def test_a_token_is_asked_for_by_post() -> None:
    for method in ("GET", "HEAD", "PUT"):
        status, sent, _ = await post(gate(Clock()), b"", method=method)
        assert (status, sent[b"allow"]) == (405, b"POST")


async def test_wrong_clients_are_limited_and_the_answer_is_then_503() -> None:
    access = gate(Clock())
    assert (await post(access, RIGHT))[0] == 200
    for number in range(BURST):
        assert (await post(access, RIGHT | {"client_secret": str(number)}))[0] == 401
    status, _, answer = await post(access, RIGHT | {"client_secret": "one more"})
    assert (status, answer["error"]) == (503, "temporarily_unavailable")
    assert (await post(access, RIGHT))[0] == 200


@pytest.mark.parametrize(
    ("failure", "status"), [(RuntimeError, 503), (asyncio.CancelledError, 503)]
)
async def test_a_failure_of_ours_is_never_a_refusal(
    failure: type[BaseException], status: int
) -> None:
    class Broken(Access):
        async def token(self, *_: object) -> NoReturn:
            raise failure

    found, _, answer = await post(Broken(policy([], []), CollectorRegistry()), RIGHT)
    assert (found, answer["error"]) == (status, "temporarily_unavailable")


async def test_who_goes_away_gets_no_answer() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": "/oauth/token", "headers": []}
    await TokenEndpoint(gate(Clock()), lambda _: None)(scope, receive, send)


@given(body=st.binary(max_size=200), header=st.binary(max_size=60))
def test_nothing_breaks_the_token_end_point_or_gets_a_token(body: bytes, header: bytes) -> None:
    for content in (body, b"grant_type=client_credentials&client_secret=" + body):
        for value in (header, b"Basic " + base64.b64encode(header)):
            asked = post(gate(Clock()), content, [(b"authorization", value)])
            assert asyncio.run(asked)[0] in (400, 401, 503)
