"""Which header proves which credential, and what an answer costs or tells: without HTTP."""

import asyncio
import base64
import hashlib
import threading
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given, strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from ingress.access import HASHING_AT_ONCE, Access, Unjudged, client_network
from ingress.answers import Answer
from ingress.attempts import BURST, SECONDS_PER_ATTEMPT, Attempts, Verdicts
from ingress.auth import Credential, policy
from ingress.auth_metrics import AuthMetrics
from ingress.secrets_store import Scrypt, ha1_text, scrypt_text, sha256_text
from ingress.tokens import Keys

pytestmark = pytest.mark.anyio

KEYS = Keys.of(b"a key")
GENERATED = "7f" * 32
CHOSEN = "pässword:with colon"

OLD = Credential(name="old", domains=("demo",), kind="basic", username="zoë", secret=CHOSEN)
NEW = Credential(
    name="new", domains=("demo", "two"), kind="basic", username="zoë", secret=sha256_text(GENERATED)
)
KEY = Credential(name="key", domains=("keys",), kind="api-key", secret="ApiKey hq:abc")
OWN = Credential(
    name="own", domains=("keys", "demo"), kind="api-key", secret="schlüssel", header="X-API-Key"
)
SLOW = Credential(
    name="slow", domains=("slow",), kind="basic", username="zoë", secret=scrypt_text(CHOSEN)
)
DIGEST = Credential(
    name="digest", domains=("all",), kind="digest", username="hq", secret=ha1_text("hq", "x")
)
CLIENT = Credential(
    name="client", domains=("all",), kind="oauth2", username="id", secret=sha256_text(GENERATED)
)
ALL = (OLD, NEW, KEY, OWN, SLOW, DIGEST, CLIENT)


def basic(pair: str, encoding: str = "utf-8") -> bytes:
    return b"Basic " + base64.b64encode(pair.encode(encoding))


class Hasher:
    """scrypt, as a double: it counts, and waits until it is let go."""

    def __init__(self, *, held: bool = False) -> None:
        self.go = threading.Event()
        if not held:
            self.go.set()
        self.asked = count()
        self.calls = 0
        self.at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self, stored: Scrypt, presented: bytes) -> bool:
        with self._lock:
            self.calls += 1
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        self.go.wait(30)
        with self._lock:
            self._now -= 1
        return presented == CHOSEN.encode()


def gate(*credentials: Credential, keys: Keys = KEYS, hasher: Hasher | None = None) -> Access:
    domains = {domain for credential in credentials for domain in credential.domains}
    rules = policy(domains, credentials, keys)
    return Access(rules, CollectorRegistry(), hasher=hasher or Hasher())


async def ask(
    access: Access, domain: str, *headers: tuple[bytes, bytes], client: str = "10.0.0.1"
) -> Answer | None:
    scope: dict[str, Any] = {
        "method": "POST",
        "headers": [(b"host", b"h"), *headers],
        "client": (client, 1234),
        "raw_path": f"/api/v1/in/{domain}".encode(),
        "query_string": b"",
    }
    return await access.refusal(domain, scope)


async def status(access: Access, domain: str, *headers: tuple[bytes, bytes]) -> int:
    answer = await ask(access, domain, *headers)
    return 200 if answer is None else answer.status


def uses(access: Access, name: str) -> float:
    (metric,) = access.metrics._uses.collect()
    found = [
        sample.value
        for sample in metric.samples
        if sample.labels == {"credential": name} and sample.name.endswith("_total")
    ]
    return sum(found)


@pytest.mark.parametrize(
    ("domain", "header", "value", "proven"),
    [
        ("demo", b"authorization", basic(f"zoë:{CHOSEN}"), "old"),
        ("demo", b"authorization", basic(f"zoë:{CHOSEN}", "latin-1"), "old"),
        ("demo", b"authorization", basic(f"zoë:{GENERATED}").replace(b"Basic", b"bAsIc"), "new"),
        ("two", b"authorization", basic(f"zoë:{GENERATED}", "latin-1"), "new"),
        ("slow", b"authorization", basic(f"zoë:{CHOSEN}"), "slow"),
        ("slow", b"authorization", basic(f"zoë:{CHOSEN}", "latin-1"), "slow"),
        ("demo", b"x-api-key", "schlüssel".encode(), "own"),
        ("demo", b"x-api-key", "schlüssel".encode("latin-1"), "own"),
        ("keys", b"authorization", b"ApiKey hq:abc", "key"),
        ("two", b"authorization", basic(f"zoë:{CHOSEN}"), None),
        ("demo", b"authorization", basic(f"zoe:{GENERATED}"), None),
        ("demo", b"authorization", basic("zoë:"), None),
        ("demo", b"authorization", basic(""), None),
        ("demo", b"authorization", basic(f"zoë:sha256:{GENERATED}"), None),
        ("demo", b"authorization", basic(f"zoë:{NEW.secret}"), None),
        ("slow", b"authorization", basic(f"zoe:{CHOSEN}"), None),
        ("slow", b"authorization", basic(f"zoë:{SLOW.secret}"), None),
        ("demo", b"authorization", b"Basic ***", None),
        ("demo", b"authorization", b"", None),
        ("demo", b"authorization", b"ApiKey hq:abc", None),
        ("keys", b"authorization", b"hq:abc", None),
        ("keys", b"x-other", b"ApiKey hq:abc", None),
        ("keys", b"authorization", basic(f"zoë:{GENERATED}"), None),
        ("all", b"authorization", basic(f"id:{GENERATED}"), None),
        ("all", b"authorization", b"Bearer " + GENERATED.encode(), None),
    ],
)
async def test_a_request_proves_what_it_should(
    domain: str, header: bytes, value: bytes, proven: str | None
) -> None:
    access = gate(*ALL)
    for _ in range(2):
        assert await status(access, domain, (header, value)) == (401 if proven is None else 200)
    assert [name for name in (each.name for each in ALL) if uses(access, name)] == (
        [] if proven is None else [proven]
    )


@given(
    value=st.one_of(
        st.binary(max_size=60),
        st.sampled_from([b"Basic ", b"Digest ", b"Bearer cw1.", b"Bearer "]).flatmap(
            lambda scheme: st.binary(max_size=120).map(lambda rest: scheme + rest)
        ),
        st.from_regex(
            rb'\ADigest (?:(?:username|realm|nonce|uri|response|nc|cnonce|qop)="?[ -~]{0,9}"?, ){8}'
        ),
        st.binary(max_size=90).map(lambda rest: b"Bearer cw1." + base64.urlsafe_b64encode(rest)),
    )
)
def test_no_header_breaks_the_gate_or_gets_in(value: bytes) -> None:
    access = gate(*ALL)
    for domain in ("demo", "keys", "all", "slow"):
        answer = asyncio.run(ask(access, domain, (b"authorization", value), (b"x-api-key", value)))
        assert answer is not None
        assert answer.status in (401, 503)


async def test_an_answer_does_not_tell_which_user_or_secret_is_wrong() -> None:
    access = gate(*ALL)
    wrong = [
        await ask(access, domain, (b"authorization", value))
        for domain in ("demo", "slow")
        for value in (
            basic("zoë:wrong"), basic("nobody:wrong"), basic(f"nobody:{CHOSEN}"), b"Basic", b"x",
        )
    ]  # fmt: skip
    wrong.append(await ask(access, "slow"))
    assert len({(answer.status, answer.text) for answer in wrong if answer}) == 1


async def test_a_wrong_user_costs_scrypt_as_a_right_one_does() -> None:
    for pair in ("zoë:wrong", "nobody:wrong"):
        hasher = Hasher()
        assert await status(gate(SLOW, hasher=hasher), "slow", (b"x", b"")) == 401
        assert hasher.calls == 0
        access = gate(SLOW, hasher=hasher)
        assert await status(access, "slow", (b"authorization", basic(pair, "latin-1"))) == 401
        calls = hasher.calls
        assert calls > 0
        assert await status(access, "slow", (b"authorization", basic(pair, "latin-1"))) == 401
        assert hasher.calls == calls, "a wrong secret is remembered too"


async def test_scrypt_runs_beside_the_loop_twice_at_most_and_once_for_a_secret() -> None:
    hasher = Hasher(held=True)
    access = gate(SLOW, hasher=hasher)
    right = (b"authorization", basic(f"zoë:{CHOSEN}".encode().decode()))
    asked: list[asyncio.Task[int]] = []
    for number in range(10):
        guess = (b"authorization", basic(f"zoe:{number}"))
        asked.append(asyncio.create_task(status(access, "slow", guess)))
        asked += [asyncio.create_task(status(access, "slow", right)) for _ in range(50)]
    async with asyncio.timeout(30):
        while hasher.calls < HASHING_AT_ONCE:  # noqa: ASYNC110 - a thread sets no asyncio event
            await asyncio.sleep(0.001)
    assert not any(task.done() for task in asked)
    hasher.go.set()
    results = await asyncio.gather(*asked)
    assert results.count(200) == 500
    assert results.count(401) == 10
    assert hasher.at_once == HASHING_AT_ONCE
    assert hasher.calls == 10 + 2, "the right one is asked for in two readings, once each"


async def test_a_hasher_that_fails_is_our_own_fault() -> None:
    def failing(stored: Scrypt, presented: bytes) -> bool:
        raise MemoryError

    access = Access(policy(["slow"], [SLOW]), CollectorRegistry(), hasher=failing)
    assert await status(access, "slow", (b"authorization", basic("zoë:x"))) == 503


async def test_above_the_limit_nothing_is_judged_but_what_is_known_gets_in() -> None:
    access = gate(OLD, SLOW, NEW)
    right = (b"authorization", basic(f"zoë:{CHOSEN}"))
    newer = (b"authorization", basic(f"zoë:{GENERATED}"))
    assert await status(access, "demo", right) == 200
    wrong = [(b"authorization", basic(f"zoë:{number}")) for number in range(BURST + 1)]
    found = [await status(access, "demo", each) for each in wrong]
    assert found == [401] * BURST + [503]
    assert await status(access, "demo", right) == 200
    assert await status(access, "demo", wrong[0]) == 401
    assert await status(access, "demo", newer) == 503
    assert await status(access, "two", newer) == 200
    assert await ask(access, "demo", newer, client="10.0.0.2") is None
    assert (await ask(access, "demo", wrong[-1], client="10.0.0.2")) is not None


async def test_requests_without_credentials_are_challenged_without_limit() -> None:
    access = gate(*ALL)
    assert {await status(access, "all") for _ in range(3 * BURST)} == {401}


async def test_missing_keys_are_our_own_fault_and_others_get_in_still() -> None:
    mixed = Credential(
        name="mixed", domains=("all",), kind="basic", username="b", secret=sha256_text(GENERATED)
    )
    access = gate(*ALL, mixed, keys=Keys(missing="/keys/gone cannot be read"))
    assert await status(access, "all", (b"authorization", basic(f"b:{GENERATED}"))) == 200
    assert await status(access, "all", (b"authorization", basic("b:wrong"))) == 503
    assert await status(access, "demo", (b"authorization", basic("b:wrong"))) == 401
    answer = await ask(access, "all")
    assert answer is not None
    assert answer.status == 503
    assert "the signing keys cannot be read" in answer.text
    assert "/keys/gone" not in answer.text
    verdict, token = await access.token("client_credentials", [(b"id", GENERATED.encode())], "")
    assert isinstance(verdict, Unjudged)
    assert not token


async def test_a_new_policy_holds_at_once_and_forgets_what_the_old_one_proved() -> None:
    access = gate(OLD, NEW)
    right = (b"authorization", basic(f"zoë:{CHOSEN}"))
    assert await status(access, "demo", right) == 200
    access.replace(policy(["demo"], [NEW]))
    assert await status(access, "demo", right) == 401
    assert uses(access, "old") == 0
    access.replace(policy(["demo"], [NEW, OLD]))
    assert await status(access, "demo", right) == 200


def test_a_secret_is_neither_stored_nor_shown() -> None:
    assert policy(["demo"], ALL).secret_headers == {"authorization", "x-api-key"}
    shown = repr(ALL) + repr(policy(["demo"], ALL, KEYS))
    secret = [CHOSEN, GENERATED, *(each.secret.rpartition(":")[2] for each in (NEW, SLOW, DIGEST))]
    assert not [each for each in secret if each in shown]
    assert hashlib.sha256(GENERATED.encode()).digest() not in shown.encode()


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix:", "unix:"),
        (None, ""),
    ],
)
def test_a_guesser_has_one_address_or_one_network(address: str | None, network: str) -> None:
    assert client_network({"client": (address, 1) if address else None}) == network


@given(st.lists(st.floats(0, 100), max_size=200))
def test_an_address_has_its_burst_and_then_one_in_some_seconds(gaps: Sequence[float]) -> None:
    attempts = Attempts()
    now = 0.0
    allowed = 0
    for gap in gaps:
        now += gap
        allowed += attempts.take("x", now)
        assert allowed <= BURST + now / SECONDS_PER_ATTEMPT + 1e-6
    attempts.give_back("x")
    assert attempts.take("x", now)


def test_a_credential_in_use_is_logged_once_a_minute_and_forgotten_when_it_is_gone() -> None:
    registry = CollectorRegistry()
    metrics = AuthMetrics(registry)
    with capture_logs() as lines:
        for now in range(180):
            metrics.used("hq", "demo", now)
        metrics.used("other", "demo", 180)
    assert [line["credential"] for line in lines] == ["hq", "hq", "hq", "other"]
    name = "casewire_ingress_credential_uses_total"
    assert registry.get_sample_value(name, {"credential": "hq"}) == 180
    metrics.issued("hq")
    metrics.keep({"other"})
    assert registry.get_sample_value(name, {"credential": "hq"}) is None
    assert registry.get_sample_value(name, {"credential": "other"}) == 1
    assert registry.get_sample_value("casewire_ingress_tokens_total", {"credential": "hq"}) is None


def test_memories_are_bounded_and_forget_what_is_not_used() -> None:
    verdicts = Verdicts(2, 100)
    for number in range(3):
        verdicts.put(b"%d" % number, "name", 0)
    assert verdicts.get(b"0", 0) is None
    assert verdicts.get(b"1", 60) == "name"
    assert verdicts.get(b"2", 101) is None
    assert verdicts.get(b"1", 150) == "name"
    attempts = Attempts()
    for number in range(20_000):
        attempts.take(number, 0)
    assert len(attempts._buckets) == 10_000
