"""`[sinks.NAME]` with `type = "kafka"`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal

from msgspec import Meta

from schemas.topics import DEFAULT_PREFIX, TOPICS
from sinks.redaction import path_problems
from sinks.renaming import rename_problems
from sinks.settings import SinkTable

_SERVERS: Final = re.compile(r"[^\s,:/@]+:\d{1,5}(,[^\s,:/@]+:\d{1,5})*")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_SHORTEST_KEY: Final = 16


class KafkaSinkSettings(SinkTable, frozen=True, kw_only=True, tag="kafka"):
    """A topic for one subscriber, on any cluster, without what he is not to see."""

    bootstrap_servers: Annotated[
        str,
        Meta(
            description="The brokers of the subscriber's cluster, as HOST:PORT, with commas.",
            examples=["kafka.partner.example.org:9093"],
        ),
    ]
    topic: Annotated[
        str,
        Meta(
            description="The topic's name. It must exist: who owns the cluster decides on its "
            "partitions and how long it keeps what.",
            examples=["clinic.patients"],
        ),
    ]
    drop: Annotated[
        Sequence[str],
        Meta(
            description="Paths to leave out. `*` is any one key, `**` any number of them.",
            examples=[["properties.phone", "metadata.username", "attachments"]],
        ),
    ] = ()
    hash: Annotated[
        Sequence[str],
        Meta(
            description="Paths whose values become a keyed hash: the same for the same value.",
            examples=[["properties.national_id", "form.**.national_id"]],
        ),
    ] = ()
    hash_key: Annotated[
        str,
        Meta(
            description="The key of the hash, 16 characters or more.",
            examples=["not-a-real-secret"],
        ),
    ] = ""
    hash_key_file: Annotated[
        str,
        Meta(
            description="A file that holds `hash_key`, which is where it should be.",
            examples=["/etc/casewire/partner-hash-key"],
        ),
    ] = ""
    rename: Annotated[
        Mapping[str, str],
        Meta(
            description="New names of keys, by path; `drop` and `hash` know them by the old ones.",
            examples=[{"properties.dob": "date_of_birth"}],
        ),
    ] = MappingProxyType({})
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        Meta(description="How to talk to the brokers, in Kafka's words.", examples=["SASL_SSL"]),
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
        Meta(description="How SASL logs in.", examples=["SCRAM-SHA-512"]),
    ] = "SCRAM-SHA-512"
    user: Annotated[str, Meta(description="SASL's user.", examples=["casewire"])] = ""
    password: Annotated[
        str, Meta(description="SASL's password.", examples=["not-a-real-secret"])
    ] = ""
    password_file: Annotated[
        str,
        Meta(
            description="A file that holds `password`, which is where it should be.",
            examples=["/etc/casewire/partner-password"],
        ),
    ] = ""
    tls_authorities: Annotated[
        str,
        Meta(
            description="A PEM file with the authorities to trust; empty: the system's.",
            examples=["/etc/casewire/partner-ca.pem"],
        ),
    ] = ""
    tls_certificate: Annotated[
        str,
        Meta(
            description="A PEM file with a certificate of our own and its key, if brokers want "
            "one.",
            examples=["/etc/casewire/partner-client.pem"],
        ),
    ] = ""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if not _SERVERS.fullmatch(self.bootstrap_servers):
            yield "bootstrap_servers: is no list of brokers; write HOST:PORT,HOST:PORT"
        if not _TOPIC.fullmatch(self.topic):
            yield "topic: is no name of a topic; it has letters, digits, dots, - and _"
        elif self.topic in {DEFAULT_PREFIX + name for name in TOPICS}:
            yield "topic: is one of Casewire's own; take another name"
        yield from path_problems("drop", self.drop)
        yield from path_problems("hash", self.hash)
        yield from rename_problems(self.rename)
        if self.hash and len(self.hash_key) < _SHORTEST_KEY:
            yield f"hash_key: missing, or under {_SHORTEST_KEY} characters; write a longer one"
        yield from self._login_problems()

    def _login_problems(self) -> Iterator[str]:
        sasl = self.security_protocol.startswith("SASL")
        tls = self.security_protocol.endswith("SSL")
        for key in ("user", "password"):
            if sasl != bool(getattr(self, key)):
                remedy = f"missing; {self.security_protocol} needs it"
                unused = f"is not used by {self.security_protocol}; take a SASL protocol"
                yield f"{key}: {remedy if sasl else unused}"
        for key in ("tls_authorities", "tls_certificate"):
            if getattr(self, key) and not tls:
                yield f"{key}: is not used by {self.security_protocol}; take SSL or SASL_SSL"

    def place(self, data_dir: Path) -> str:
        return f"{self.bootstrap_servers}/{self.topic}"
