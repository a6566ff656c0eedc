"""What every table of the configuration has in common, and `[kafka]`."""

import ipaddress
from collections.abc import Iterator
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from schemas.topics import DEFAULT_PREFIX, MEBIBYTE

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of casewire.toml: an immutable value whose unknown keys are errors."""


SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

_PASSWORD_KEYS: Final = ("sasl_username", "sasl_password")
_OAUTH_KEYS: Final = ("oauth_token_url", "oauth_client_id", "oauth_client_secret")
_TLS_KEYS: Final = ("ca_file", "cert_file", "key_file")


class KafkaSettings(Table, frozen=True, kw_only=True):
    """`bootstrap_servers` empty: `casewire up` starts a broker of its own.

    `retention_bytes` bounds each partition of a topic on one machine (replication 1). The rest is
    how to log in at the brokers, in Kafka's words; files are PEM.
    """

    bootstrap_servers: str = ""
    topic_prefix: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]*$")] = DEFAULT_PREFIX
    partitions: Positive = 8
    replication: Positive = 1
    retention_bytes: Positive = 8 * 1024 * MEBIBYTE
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: str = ""
    sasl_password_file: str = ""
    oauth_token_url: str = ""
    oauth_client_id: str = ""
    oauth_client_secret: str = ""
    oauth_client_secret_file: str = ""
    oauth_scope: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def problems(self) -> Iterator[str]:
        """Yield what is wrong between keys that are each right: `key: what; remedy`."""
        if self.security_protocol != "PLAINTEXT" and not self.bootstrap_servers:
            yield "security_protocol: is for brokers of yours; name them in bootstrap_servers"
        if not self.security_protocol.endswith("SSL"):
            for key in _TLS_KEYS:
                if getattr(self, key):
                    yield f"{key}: is not used by {self.security_protocol}; take SSL or SASL_SSL"
        if self.key_file and not self.cert_file:
            yield "key_file: goes with cert_file; give both, or neither"
        yield from self._sasl_problems()

    def _sasl_problems(self) -> Iterator[str]:
        sasl = self.security_protocol.startswith("SASL")
        oauth = self.sasl_mechanism == "OAUTHBEARER"
        login = f"{self.security_protocol} with {self.sasl_mechanism}"
        for keys, used in ((_PASSWORD_KEYS, sasl and not oauth), (_OAUTH_KEYS, sasl and oauth)):
            for key in keys:
                secret = f"{key}_file" in self.__struct_fields__
                if used and not getattr(self, key):
                    yield f"{key}{'_file' if secret else ''}: missing; {login} needs it, add it"
                if getattr(self, key) and not used:
                    yield f"{key}: is not used by {login}; remove it, or correct what logs in"
        if self.oauth_token_url and not _is_safe(self.oauth_token_url):
            yield "oauth_token_url: would show the secret to the network; write https://HOST/PATH"

    def topic(self, name: str) -> str:
        """Return the full name of a topic of `schemas.topics.TOPICS`."""
        return self.topic_prefix + name

    def short(self, topic: str) -> str:
        """Return the name in `schemas.topics.TOPICS` of a topic's full name."""
        return topic.removeprefix(self.topic_prefix)

    def group(self, role: str) -> str:
        """Return a role's consumer group: `casewire-streams` with the default prefix.

        Two installations on one cluster differ by prefix, and so must their groups.
        """
        return f"{self.topic_prefix.rstrip('.') or 'casewire'}-{role}"


def _is_safe(url: str) -> bool:
    """Whether a secret may be sent there: by TLS, or on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    try:
        return parts.scheme == "http" and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return parts.scheme == "http" and host == "localhost"
