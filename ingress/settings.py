"""`[ingress]`, `[domains.NAME]` and `[credentials.NAME]` of casewire.toml."""

from collections.abc import Sequence
from typing import Literal

from schemas.settings import Positive, Table
from schemas.topics import MEBIBYTE


class IngressSettings(Table, frozen=True, kw_only=True):
    """`unknown_domains`: None accepts any domain as long as none is configured.

    `max_in_flight_bytes` bounds the bodies that are being received; those on their way to Kafka are
    bounded by it and by 80 MiB, since the broker refuses requests of 100 MiB. `spool_bytes` bounds
    what a process keeps in its part of the spool, `<data_dir>/spool`, while Kafka does not take it.
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


class DomainSettings(Table, frozen=True, kw_only=True):
    """A project space. It has no settings of its own yet; that it is named makes it known."""


class CredentialSettings(Table, frozen=True, kw_only=True):
    """A secret with which HQ may forward to `domains`.

    `secret_file` holds the secret. `basic` needs `username`. `api-key` compares the whole value
    of `header`, since HQ sends an API key verbatim.
    """

    domains: Sequence[str]
    kind: Literal["basic", "api-key"]
    secret_file: str
    username: str = ""
    header: str = "authorization"
