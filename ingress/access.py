"""The gate of the ingress: judges each request by a policy that can be replaced at any time."""

import asyncio
import hashlib
import ipaddress
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

from prometheus_client import REGISTRY, CollectorRegistry
from starlette.types import Scope

from ingress import answers, auth, digest
from ingress.answers import Answer
from ingress.attempts import Attempts, Used, Verdicts
from ingress.auth import Grant, Guard, Pairs, Policy, Question, prove_at_once, slow_checks
from ingress.auth_metrics import AuthMetrics, Failure
from ingress.secrets_store import Scrypt
from ingress.tokens import TOKEN_SECONDS, Token, looks_like_token, read_token, sign_token

#: Whether scrypt gives the stored key for what was presented.
Hasher: TypeAlias = Callable[[Scrypt, bytes], bool]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

HASHING_AT_ONCE: Final = 2
_HASHING_QUEUE: Final = 64
_REMEMBERED: Final = 4096
#: Digest proofs: nine a second, for as long as a nonce lives.
_PROOFS_REMEMBERED: Final = 32_768
_GOOD_SECONDS: Final = 3600.0
_WRONG_SECONDS: Final = 600.0
#: Label and limiter's name of the token end points, which serve all domains.
TOKEN_PLACE: Final = "token"  # noqa: S105

_QUEUE_FULL: Final = "too many passwords are being checked"
_TOO_MANY: Final = "too many wrong credentials came from this address; wait a minute"
_NOT_CHECKED: Final = "the credentials could not be checked"
_EXPIRED: Final = "the access token has expired; a new one is needed"
_NOT_KNOWN: Final = "what signed the credentials is not known here, or not yet"
_NO_KEYS: Final = "the signing keys cannot be read; the log of the ingress tells why"
_USED: Final = "these Digest credentials have been used already; send again after a new challenge"
_MOVED: Final = "the credentials are for another address; does a proxy change it?"


class Proven(str):
    """The name of the credential that a request proved."""

    __slots__ = ()


class Unjudged(str):
    """Why the credentials could not be judged: HQ is to try again."""

    __slots__ = ()


class Wrong:
    """The credentials are certainly wrong. `stale`: but for the Digest nonce."""

    __slots__ = ("stale",)

    def __init__(self, *, stale: bool = False) -> None:
        self.stale = stale


Verdict: TypeAlias = Proven | Unjudged | Wrong
_WRONG: Final = Wrong()


class SlowChecks:
    """Runs scrypt in threads, at most two at once, and each secret once however often it comes."""

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self._threads = ThreadPoolExecutor(HASHING_AT_ONCE, thread_name_prefix="scrypt")
        self._running: dict[bytes, asyncio.Future[str]] = {}

    def running(self, key: bytes) -> bool:
        return key in self._running

    async def verdict(self, key: bytes, questions: Sequence[Question]) -> Verdict:
        """Return the verdict on the secret that `key` stands for."""
        running = self._running.get(key)
        if running is None:
            if len(self._running) >= _HASHING_QUEUE:
                return Unjudged(_QUEUE_FULL)
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._threads, self._prove, questions)
            self._running[key] = running
            running.add_done_callback(lambda done: self._done(key, done))
        try:
            name = await asyncio.shield(running)
        except (MemoryError, ValueError, RuntimeError):
            return Unjudged(_NOT_CHECKED)
        return Proven(name) if name else _WRONG

    def _prove(self, questions: Sequence[Question]) -> str:
        proven = ""
        for name, user_is_right, stored, secret in slow_checks(questions):
            if self._hasher(stored, secret) and user_is_right:
                proven = name
        return proven

    def _done(self, key: bytes, done: asyncio.Future[str]) -> None:
        del self._running[key]
        if not done.cancelled():
            done.exception()


class Access:
    """Judges requests. `policy` may be replaced between any two of them.

    `clock` returns seconds since 1970, `hasher` is what scrypt is asked by.
    """

    def __init__(
        self,
        policy: Policy,
        registry: CollectorRegistry = REGISTRY,
        *,
        hasher: Hasher = Scrypt.proves,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.policy = policy
        self.metrics = AuthMetrics(registry)
        self._clock = clock
        self._salt = os.urandom(32)
        self._good = Verdicts(_REMEMBERED, _GOOD_SECONDS)
        self._bad = Verdicts(_REMEMBERED, _WRONG_SECONDS)
        self._proofs = Used(_PROOFS_REMEMBERED)
        self._attempts = Attempts()
        self._slow = SlowChecks(hasher)

    def replace(self, policy: Policy) -> None:
        """Judge by another policy from now on; nothing that the old one proved is remembered."""
        self._salt = os.urandom(32)
        self.policy = policy
        self.metrics.keep(policy.names)

    def configured(self, domain: str) -> bool:
        return domain in self.policy.domains

    async def refusal(self, domain: str, scope: Scope) -> Answer | None:
        """Return the answer to a request that may not pass, None if it may."""
        policy = self.policy
        guard = policy.guards.get(domain)
        if guard is None:
            return None
        presented = [(name, value) for name, value in scope["headers"] if name in guard.headers]
        if not presented:
            return self._refused(policy, guard, domain, _WRONG, "missing")
        verdict = await self._judge(policy, guard, domain, presented, scope)
        if not isinstance(verdict, Proven):
            return self._refused(policy, guard, domain, verdict, "wrong")
        self.metrics.used(verdict, domain, time.monotonic())
        return None

    async def token(self, grant: Grant, pairs: Pairs, client: str) -> tuple[Verdict, str]:
        """Return the verdict on a request for a token, and the token if it is proven."""
        policy = self.policy
        signing = policy.keys.signing
        if signing is None:
            self.metrics.failed(TOKEN_PLACE, "not judged")
            return Unjudged(_NO_KEYS), ""
        key = self._key(f"{TOKEN_PLACE} {grant}", pairs)
        question = Question(policy.grants.get(grant, ()), pairs)
        verdict = await self._secret(key, [question], (TOKEN_PLACE, client))
        if not isinstance(verdict, Proven):
            failure: Failure = "wrong" if isinstance(verdict, Wrong) else "not judged"
            self.metrics.failed(TOKEN_PLACE, failure)
            return verdict, ""
        name = str(verdict)
        self.metrics.issued(name)
        expires = int(self._clock()) + TOKEN_SECONDS
        return verdict, sign_token(signing, Token(name, policy.bindings[name], expires))

    async def _judge(
        self, policy: Policy, guard: Guard, domain: str, presented: Headers, scope: Scope
    ) -> Verdict:
        sent_token = auth.bearer_token(presented) if guard.tokens else None
        if sent_token is not None and looks_like_token(sent_token):
            return self._token(policy, guard, sent_token)
        sent_digest = auth.digest_value(presented) if guard.digests else None
        if sent_digest is not None:
            return self._digest(policy, guard, sent_digest, scope, domain)
        key = self._key(domain, presented)
        if name := self._good.get(key, time.monotonic()):
            return Proven(name)
        source = (domain, client_network(scope))
        return await self._secret(key, guard.questions(presented), source)

    async def _secret(
        self, key: bytes, questions: Sequence[Question], source: tuple[str, str]
    ) -> Verdict:
        """Judge secrets, each different one once. `key` stands for them."""
        now = time.monotonic()
        if name := self._good.get(key, now):
            return Proven(name)
        if self._bad.get(key, now) is not None:
            return _WRONG
        if self._slow.running(key):
            return await self._slow.verdict(key, questions)
        if not self._attempts.take(source, now):
            return Unjudged(_TOO_MANY)
        name = prove_at_once(questions)
        verdict: Verdict = Proven(name) if name else _WRONG
        if not name and slow_checks(questions):
            verdict = await self._slow.verdict(key, questions)
        if isinstance(verdict, Wrong):
            self._bad.put(key, "", now)
        else:
            self._attempts.give_back(source)
        if isinstance(verdict, Proven):
            self._good.put(key, str(verdict), now)
        return verdict

    def _token(self, policy: Policy, guard: Guard, sent: bytes) -> Verdict:
        """Judge a token. What was once ours is not refused: HQ would lose the event for good.

        It has expired, or its credential has been revoked or changed since (or is not known
        here yet): HQ fetches a new one for the next attempt, and is refused there if need be.
        """
        token = read_token(policy.keys, sent)
        if token is None:
            return _WRONG
        if token == "unknown":  # noqa: S105
            return Unjudged(_NOT_KNOWN)
        if policy.bindings.get(token.credential) != token.binding:
            return Unjudged(_NOT_KNOWN)
        if token.credential not in guard.tokens:
            return _WRONG
        return Proven(token.credential) if self._clock() < token.expires else Unjudged(_EXPIRED)

    def _digest(
        self, policy: Policy, guard: Guard, sent: bytes, scope: Scope, domain: str
    ) -> Verdict:
        """Judge an answer to a challenge. One that comes again is not stored, and not refused.

        A proxy can have sent it twice, and requests answers one challenge for each request: a
        second 401 would be final for HQ, although the first copy may have been answered 503.
        """
        source = (domain, client_network(scope))
        if not self._attempts.take(source, time.monotonic()):
            return Unjudged(_TOO_MANY)
        target: bytes = scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        outcome = digest.check(
            sent, scope["method"], target, guard.digests, policy.keys, self._clock()
        )
        if outcome.judged != "wrong":
            self._attempts.give_back(source)
        if outcome.judged == "proven":
            return Proven(outcome.name) if self._proofs.first(outcome.proof) else Unjudged(_USED)
        if outcome.judged in ("unknown", "moved"):
            return Unjudged(_MOVED if outcome.judged == "moved" else _NOT_KNOWN)
        return Wrong(stale=outcome.judged == "stale")

    def _refused(
        self, policy: Policy, guard: Guard, domain: str, verdict: Verdict, failure: Failure
    ) -> Answer:
        signing = policy.keys.signing
        if isinstance(verdict, Wrong) and guard.needs_keys and signing is None:
            verdict = Unjudged(_NO_KEYS)
        if isinstance(verdict, Unjudged):
            self.metrics.failed(domain, "not judged")
            return answers.unavailable(verdict)
        self.metrics.failed(domain, failure)
        values = list(guard.challenges)
        if guard.digests and signing is not None:
            stale = isinstance(verdict, Wrong) and verdict.stale
            values += digest.challenges(signing, guard.digests, self._clock(), stale=stale)
        return answers.unauthorized([(b"www-authenticate", value) for value in values])

    def _key(self, place: str, presented: Pairs) -> bytes:
        """Return what stands for secrets that were presented: a MAC with a key of this process.

        Keyed BLAKE2b (RFC 7693 §2.9) takes an eighth of the time of an HMAC. What `repr` gives is
        the same for the same secrets only.
        """
        content = repr((place, presented)).encode()
        return hashlib.blake2b(content, key=self._salt, digest_size=32).digest()


def client_network(scope: Scope) -> str:
    """Return the sender's address; of IPv6 the /64, which is what one customer gets."""
    host: str = scope["client"][0] if scope.get("client") else ""
    if ":" not in host:
        return host
    try:
        return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False))
    except ValueError:
        return host
