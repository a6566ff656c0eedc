"""The one table of topics (contract §4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

DEFAULT_PREFIX: Final = "casewire."
MEBIBYTE: Final = 1024 * 1024
DAY_MS: Final = 24 * 60 * 60 * 1000
LARGE_RECORD: Final = 8 * MEBIBYTE
DEFAULT_RECORD: Final = MEBIBYTE + 12


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's name without prefix, what its key is, and how it is cleaned up.

    `retention_days` is None for a compacted topic. `max_message_bytes` bounds a record batch.
    """

    name: str
    key: str
    retention_days: int | None = None
    max_message_bytes: int = DEFAULT_RECORD
    flushed: bool = False

    @property
    def compacted(self) -> bool:
        return self.retention_days is None


TOPICS: Final[Mapping[str, Topic]] = {
    topic.name: topic
    for topic in (
        Topic("captured", "event id", 30, LARGE_RECORD, flushed=True),
        Topic("bodies", "event id", 30, 2 * MEBIBYTE),
        Topic("forms", "domain/form id", 30, LARGE_RECORD),
        Topic("cases", "domain/case id", 30, LARGE_RECORD),
        Topic("case-changes", "domain/case id", 30, LARGE_RECORD),
        Topic("form-stubs", "domain/form id", 30),
        Topic("app-changes", "domain/app id", 30),
        Topic("users", "domain/user id", 30, LARGE_RECORD),
        Topic("locations", "domain/location id", 30, LARGE_RECORD),
        Topic("custom", "event id", 30, LARGE_RECORD),
        Topic("case-state", "domain/case id", None, LARGE_RECORD),
        Topic("form-state", "domain/form id", None, LARGE_RECORD),
        Topic("user-state", "domain/user id", None, LARGE_RECORD),
        Topic("location-state", "domain/location id", None, LARGE_RECORD),
        Topic("app-schemas", "domain/app id", None, LARGE_RECORD),
        Topic("case-folds", "domain/case id", None, LARGE_RECORD),
        Topic("replays", "domain/id", 7, LARGE_RECORD),
        Topic("dead-letters", "captured event id", 90, LARGE_RECORD),
        Topic("dead-letter-state", "dead letter id", None, LARGE_RECORD),
        Topic("alert-state", "alert group", None),
        Topic("alerts", "alert group", 90),
        Topic("deliveries", "sink/partition or domain/id", 30),
    )
}


def topic_config(topic: Topic, *, replication: int, retention_bytes: int) -> dict[str, str]:
    """Return the broker's settings for a topic, as strings in Kafka's own names.

    `retention_bytes` bounds a partition on one machine (replication 1); -1 is no bound. Times are
    the broker's: it refuses records an hour ahead, and deletes by their times, whoever's they are.
    """
    config = {
        "max.message.bytes": str(topic.max_message_bytes),
        "message.timestamp.type": "LogAppendTime",
    }
    if topic.retention_days is None:
        config |= {"cleanup.policy": "compact", "delete.retention.ms": str(30 * DAY_MS)}
    else:
        retention_ms = str(topic.retention_days * DAY_MS)
        config |= {"cleanup.policy": "delete", "retention.ms": retention_ms}
    if replication >= 3:
        config |= {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
    if replication == 1:
        config["retention.bytes"] = str(retention_bytes)
        if topic.flushed:
            config["flush.messages"] = "1"
    return config
