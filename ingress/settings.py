"""`[ingress]`, `[domains.NAME]` and `[credentials.NAME]` of casewire.toml."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from ingress.auth import Kind
from schemas.settings import NotNegative, Positive, Table
from schemas.topics import MEBIBYTE


class IngressSettings(Table, frozen=True, kw_only=True):
    """`unknown_domains`: None accepts any domain as long as none is configured.

    `max_in_flight_bytes` bounds the bodies that are being received; those on their way to Kafka are
    bounded by it and by 80 MiB, since the broker refuses requests of 100 MiB. `spool_bytes` bounds
    what a process keeps in its part of the spool, `<data_dir>/spool`, while Kafka does not take it.

    `token_key_file` holds the keys that sign access tokens and Digest nonces; all processes and
    machines behind one address need the same. Empty: `token.key` in the data directory.

    `tls_cert_file` (with the chain) and `tls_key_file`, PEM, make the listener speak TLS; they are
    read again when they change. `trusted_proxies` are addresses or networks whose X-Forwarded-For
    is believed.

    A request's headers must come within `head_seconds`, its body within `body_seconds` and without
    a silence of `silence_seconds`; a connection without a request is closed after `idle_seconds`,
    which has to be more than the proxy in front keeps one. `max_events_per_second` is for each
    domain and process; 0 is no limit.
    """

    bind: str = "127.0.0.1:8080"
    max_body_bytes: Positive = 50 * MEBIBYTE
    kafka_timeout_seconds: Positive = 10
    max_in_flight_bytes: Positive = 128 * MEBIBYTE
    max_in_flight_events: Positive = 10_000
    spool: Literal["on", "off"] = "on"
    spool_bytes: Positive = 4096 * MEBIBYTE
    stored_query_parameters: Sequence[str] = ("app_id",)
    unknown_domains: Literal["accept", "refuse"] | None = None
    allow_unauthenticated: bool = False
    token_key_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    trusted_proxies: Sequence[str] = ()
    max_connections: Positive = 2000
    max_head_bytes: Positive = 64 * 1024
    max_head_fields: Positive = 200
    head_seconds: Positive = 20
    body_seconds: Positive = 300
    silence_seconds: Positive = 30
    idle_seconds: Positive = 65
    max_events_per_second: NotNegative = 0


class DomainSettings(Table, frozen=True, kw_only=True):
    """A project space. It has no settings of its own yet; that it is named makes it known."""


class CredentialSettings(Table, frozen=True, kw_only=True):
    """A secret with which HQ may forward to `domains`.

    `secret_file` holds the secret, in a form of `ingress.secrets_store`. All kinds but `api-key`
    need `username`. `api-key` compares the whole value of `header`, since HQ sends an API key
    verbatim.
    """

    domains: Sequence[str]
    kind: Kind
    secret_file: str
    username: str = ""
    header: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")] = "authorization"
