"""What every table of the configuration has in common, and `[kafka]`."""

from typing import Annotated

import msgspec

from schemas.topics import DEFAULT_PREFIX, MEBIBYTE

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of casewire.toml: an immutable value whose unknown keys are errors."""


class KafkaSettings(Table, frozen=True, kw_only=True):
    """`bootstrap_servers` empty: `casewire up` starts a broker of its own.

    `retention_bytes` bounds each partition of a topic on one machine (replication 1).
    """

    bootstrap_servers: str = ""
    topic_prefix: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]*$")] = DEFAULT_PREFIX
    partitions: Positive = 8
    replication: Positive = 1
    retention_bytes: Positive = 8 * 1024 * MEBIBYTE

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
