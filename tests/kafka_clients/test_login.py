"""Logging in at a broker that asks who comes, and what is said when it does not let us in."""

import ast
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from casewire.broker import ROOT
from casewire.reading import read_topic
from casewire.topics import create_topics
from kafka_clients.login import client_options
from kafka_clients.oauth import OAuth, TokenError, Tokens
from kafka_clients.refusals import why_not
from schemas.settings import KafkaSettings
from tests.secure_broker import PASSWORD, Issuer, SecureBroker, issuing
from tests.servers import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

CLIENTS = {"AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient"}
#: How the arguments of `kafka_clients` are passed on where a client is made.
PASSED_ON = {
    "client_options(kafka)", "client_options(target)", "client_options(self._kafka)",
    "self._client", "self._connection",
}  # fmt: skip


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing(Issuer()) as issuer:
        yield issuer


def changed(settings: KafkaSettings, **changes: str) -> KafkaSettings:
    return msgspec.structs.replace(settings, **changes)


def with_ended_token(secure: SecureBroker, issuer: Issuer) -> KafkaSettings:
    issuer.seconds = -1
    return secure.by_token(issuer)


LOGINS: dict[str, Callable[[SecureBroker, Issuer], KafkaSettings]] = {
    "SCRAM-SHA-512": lambda secure, issuer: secure.by_sasl(),
    "PLAIN": lambda secure, issuer: changed(secure.by_sasl(), sasl_mechanism="PLAIN"),
    "OAUTHBEARER": lambda secure, issuer: secure.by_token(issuer),
    "certificate": lambda secure, issuer: secure.by_certificate(),
}


@pytest.mark.parametrize("login", LOGINS)
async def test_every_kind_of_client_gets_in_by_every_login(
    secure: SecureBroker, issuer: Issuer, prefix: str, login: str
) -> None:
    settings = msgspec.structs.replace(
        LOGINS[login](secure, issuer), topic_prefix=prefix, partitions=1
    )
    await create_topics(settings)
    async with AIOKafkaProducer(**client_options(settings)) as producer:
        await producer.send_and_wait(settings.topic("captured"), b"what came")
    found = [record.value async for record in read_topic(settings, "captured")]
    assert found == [b"what came"]
    assert await why_not(settings) == ""


WRONG: dict[str, tuple[Callable[[SecureBroker, Issuer], KafkaSettings], str]] = {
    "password": (
        lambda secure, issuer: secure.by_sasl(password="wrong"),
        r"refuses the user admin \(SCRAM-SHA-512\): check \[kafka\] sasl_username and",
    ),
    "mechanism": (
        lambda secure, issuer: changed(secure.by_sasl(), sasl_mechanism="SCRAM-SHA-256"),
        r"offers no SCRAM-SHA-256: take another \[kafka\] sasl_mechanism",
    ),
    "authority": (
        lambda secure, issuer: changed(secure.by_sasl(), ca_file=""),
        r"certificate .* is not valid \(.*\): name its authority in \[kafka\] ca_file",
    ),
    "protocol": (
        lambda secure, issuer: KafkaSettings(bootstrap_servers=secure.sasl),
        r"closes the connection: check \[kafka\] security_protocol \(it is PLAINTEXT\)",
    ),
    "TLS where there is none": (
        lambda secure, issuer: changed(
            secure.by_sasl(), bootstrap_servers=secure.server.bootstrap_servers
        ),
        r"closes the connection: check \[kafka\] security_protocol \(it is SASL_SSL\)",
    ),
    "no certificate": (
        lambda secure, issuer: changed(secure.by_certificate(), cert_file="", key_file=""),
        r"check \[kafka\] security_protocol.* and cert_file if it asks for a certificate",
    ),
    "client's secret": (
        lambda secure, issuer: changed(secure.by_token(issuer), oauth_client_secret="wrong"),
        r"127.0.0.1:\d+ gives no token, it answers 401: check oauth_client_id, oauth_client_sec",
    ),
    "token": (
        with_ended_token,
        r"does not take the token that http://127.0.0.1:\d+ gives: check \[kafka\] oauth_scope",
    ),
    "issuer": (
        lambda secure, issuer: changed(
            secure.by_token(issuer), oauth_token_url=f"http://127.0.0.1:{free_port()}/token"
        ),
        r"gives no token \(ClientConnectorError\): check oauth_token_url",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_who_is_not_let_in_is_told_what_to_correct(
    secure: SecureBroker, issuer: Issuer, wrong: str
) -> None:
    settings, said = WRONG[wrong]
    with pytest.raises(Exception, match=said) as raised:
        await create_topics(settings(secure, issuer))
    assert type(raised.value).__name__ == "UnavailableError"
    assert "\n" not in str(raised.value)
    assert PASSWORD not in str(raised.value)


async def test_a_broker_that_is_not_there_says_nothing_of_logins() -> None:
    assert await why_not(KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}")) == ""


async def test_sending_goes_on_over_the_end_of_tokens(
    secure: SecureBroker, issuer: Issuer, prefix: str
) -> None:
    """The broker closes each connection whose token has ended (KIP-368)."""
    issuer.seconds = 2
    settings = msgspec.structs.replace(
        secure.by_token(issuer), topic_prefix=prefix, partitions=1, oauth_scope="kafka"
    )
    await create_topics(settings)
    sent = 0
    async with AIOKafkaProducer(**client_options(settings), enable_idempotence=True) as producer:
        before = issuer.issued
        while issuer.issued < before + 2:
            await producer.send_and_wait(settings.topic("captured"), str(sent).encode())
            sent += 1
    found = [record.value async for record in read_topic(settings, "captured")]
    assert found == [str(number).encode() for number in range(sent)]


async def test_a_token_is_used_until_shortly_before_its_end(issuer: Issuer) -> None:
    now = 0.0
    issuer.seconds = 100
    oauth = OAuth(
        token_url=f"http://127.0.0.1:{issuer.port}/token",
        client_id="admin",
        client_secret=PASSWORD,
    )
    tokens = Tokens(oauth, ssl.create_default_context(), lambda: now)
    first = await tokens.token()
    now = 79
    assert await tokens.token() == first
    now = 81
    assert await tokens.token() != first
    assert issuer.issued == 2


async def test_an_answer_without_a_token_is_told(issuer: Issuer) -> None:
    oauth = OAuth(
        token_url=f"http://127.0.0.1:{issuer.port}/elsewhere",
        client_id="admin",
        client_secret="hidden",
    )
    with pytest.raises(TokenError, match="it answers 404"):
        await Tokens(oauth, ssl.create_default_context()).token()
    assert "hidden" not in repr(oauth)


def test_no_client_is_made_without_the_login() -> None:
    """Each call of a client's class in the program passes on the arguments of `kafka_clients`."""
    calls = [
        (file, call)
        for package in ("casewire", "ingress", "kafka_clients", "sinks", "streams")
        for file in (ROOT / package).rglob("*.py")
        for call in ast.walk(ast.parse(Path(file).read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in CLIENTS
    ]
    assert len(calls) > 8
    for file, call in calls:
        given = [ast.unparse(each.value) for each in call.keywords if each.arg is None]
        known = [each for each in given if each in PASSED_ON]
        assert known, f"{file}:{call.lineno}"
