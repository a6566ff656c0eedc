"""Why brokers do not let us in, in a sentence: Kafka's clients only say that nobody answers."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from kafka_clients.login import Login, client_options, login_of
from kafka_clients.oauth import TokenError
from schemas.settings import KafkaSettings

_SECONDS: Final = 10.0

#: A broker knows us and does not allow what we ask.
NOT_ALLOWED: Final = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)


async def why_not(kafka: KafkaSettings) -> str:
    """Return why the first of our brokers that answers does not let us in; empty if one does.

    Empty too if none answers at all.
    """
    try:
        await let_in(client_options(kafka))
    except (KafkaError, OSError, TimeoutError) as error:
        return refusal(error, kafka.bootstrap_servers, login_of(kafka))
    return ""


async def let_in(options: Mapping[str, Any]) -> None:
    """Connect to one of the brokers, and leave; raise why not, which the clients would not say."""
    login = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    failure: Exception | None = None
    for host, port, _ in collect_hosts(options["bootstrap_servers"]):
        try:
            async with asyncio.timeout(_SECONDS):
                await _greet(host, port, login)
        except (KafkaError, OSError, TimeoutError) as error:
            failure = error
        else:
            return
    if failure is not None:
        raise failure


async def _greet(host: str, port: int, login: Mapping[str, Any]) -> None:
    """Connect, and ask something. Raises KafkaError, OSError or TimeoutError.

    A broker that takes no token says so in a way that aiokafka overlooks (RFC 7628 §3.2.2), and
    then tells of no brokers.
    """
    connection = await create_conn(host, port, **login)
    try:
        answer = await connection.send(MetadataRequest([]))
    finally:
        await connection.close()
    if login.get("sasl_mechanism") == "OAUTHBEARER" and not answer.brokers:
        raise SaslAuthenticationFailed("the token")


def not_allowed(error: Exception, kafka: KafkaSettings) -> str:
    """Return what to say of one of `NOT_ALLOWED`."""
    what = str(error.args[0]) if error.args else ""
    return (
        f"the broker at {kafka.bootstrap_servers} does not allow that to the user "
        f"{login_of(kafka).user or 'ANONYMOUS'} ({type(error).__name__}{what and ': '}{what}); "
        "give it the rights that casewire topics acls prints"
    )


def refusal(error: Exception, servers: str, login: Login) -> str:
    """Return what an error says about our login, with the remedy; empty if it says nothing."""
    text = ""
    if isinstance(error, TokenError):
        text = str(error)
    elif isinstance(error, SaslAuthenticationFailed):
        text = _unknown(servers, login)
    elif isinstance(error, UnsupportedSaslMechanismError):
        text = (
            f"the broker at {servers} offers no {login.mechanism}: "
            "take another [kafka] sasl_mechanism"
        )
    elif isinstance(error, ssl.SSLCertVerificationError):
        text = (
            f"the certificate of the broker at {servers} is not valid ({error.verify_message}): "
            "name its authority in [kafka] ca_file, and its brokers as their certificates do"
        )
    elif isinstance(error, ssl.SSLError):
        text = (
            f"the broker at {servers} does not speak TLS with us ({error.reason}): "
            "check [kafka] security_protocol, and cert_file if it asks for a certificate"
        )
    elif isinstance(error, (KafkaConnectionError, ConnectionResetError)):
        text = (
            f"the broker at {servers} closes the connection: check [kafka] security_protocol "
            f"(it is {login.protocol}), and cert_file if it asks for a certificate"
        )
    return text


def _unknown(servers: str, login: Login) -> str:
    if login.oauth is not None:
        return (
            f"the broker at {servers} does not take the token that {login.oauth.place} gives: "
            "check [kafka] oauth_scope, and that the broker trusts this issuer"
        )
    return (
        f"the broker at {servers} refuses the user {login.username} ({login.mechanism}): "
        "check [kafka] sasl_username and sasl_password_file"
    )
