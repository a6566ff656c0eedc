"""How every Kafka client of the program finds its brokers and logs in (docs/kafka.md)."""

import contextlib
import functools
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Final

from kafka_clients.oauth import OAuth, Tokens
from schemas.errors import ConfigError
from schemas.settings import KafkaSettings

#: How a process in a consumer group calls itself: the brokers tell it to whoever asks.
CLIENT_ID: Final = f"casewire-{metadata.version('casewire')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How to log in at brokers. Files are PEM; an empty `ca_file` is the system's authorities.

    `cert_file` may hold its key too; then `key_file` is empty.
    """

    protocol: str = "PLAINTEXT"
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    oauth: OAuth | None = None
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @property
    def sasl(self) -> bool:
        return self.protocol.startswith("SASL")

    @property
    def tls(self) -> bool:
        return self.protocol.endswith("SSL")

    @property
    def user(self) -> str:
        """Who we are to the brokers, as far as we know."""
        return self.oauth.client_id if self.oauth is not None else self.username


def login_of(kafka: KafkaSettings) -> Login:
    """Return how to log in at our own brokers."""
    oauth = None
    if kafka.sasl_mechanism == "OAUTHBEARER":
        oauth = OAuth(
            token_url=kafka.oauth_token_url,
            client_id=kafka.oauth_client_id,
            client_secret=kafka.oauth_client_secret,
            scope=kafka.oauth_scope,
        )
    return Login(
        protocol=kafka.security_protocol,
        mechanism=kafka.sasl_mechanism,
        username=kafka.sasl_username,
        password=kafka.sasl_password,
        oauth=oauth,
        ca_file=kafka.ca_file,
        cert_file=kafka.cert_file,
        key_file=kafka.key_file,
    )


class Parting(ssl.SSLObject):
    """TLS whose end is told to the broker, and not waited for (RFC 8446 §6.1 allows that).

    A broker answers it only after the fetch that is under way, and uvloop misses some of these
    answers: closing a consumer took half a second or 30.
    """

    def unwrap(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            super().unwrap()


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Return the arguments that every client of aiokafka's needs: where, and how to log in.

    Raises ConfigError if a file is not what it should be.
    """
    return {"bootstrap_servers": kafka.bootstrap_servers, **login_options(login_of(kafka))}


@functools.cache
def login_options(login: Login) -> Mapping[str, Any]:
    """Return how aiokafka's clients log in. All of one process share TLS settings and tokens.

    Raises ConfigError if a file is not what it should be; it says which key names it.
    """
    options: dict[str, Any] = {"security_protocol": login.protocol}
    if login.tls:
        options["ssl_context"] = _context(login)
    if login.sasl:
        options["sasl_mechanism"] = login.mechanism
    if login.sasl and login.oauth is not None:
        context = _context(login) if login.ca_file else ssl.create_default_context()
        options["sasl_oauth_token_provider"] = Tokens(login.oauth, context)
    elif login.sasl:
        options |= {"sasl_plain_username": login.username, "sasl_plain_password": login.password}
    return options


def _context(login: Login) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=login.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"ca_file: {login.ca_file} cannot be read as PEM ({_reason(error)}); correct the file"
        ) from error
    context.sslobject_class = Parting
    if login.cert_file:
        try:
            context.load_cert_chain(login.cert_file, login.key_file or None, password="")
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"cert_file: {login.cert_file} and its key cannot be read as PEM "
                f"({_reason(error)}); correct cert_file and key_file"
            ) from error
    return context


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
