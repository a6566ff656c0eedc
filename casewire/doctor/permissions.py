"""What the user of [kafka] may do, as the brokers say, beside what the roles need.

Nothing is tried: brokers with ACLs tell what a user may do with a topic or a group (KIP-430).
"""

from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from aiokafka.protocol.admin import DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from casewire.config import Config
from casewire.doctor.asking import ask
from casewire.health import running
from casewire.progress import with_coordinator
from casewire.topics import admin
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS

Operation: TypeAlias = str

#: Kafka's numbers of operations (org.apache.kafka.common.acl.AclOperation).
_OPERATIONS: Final[Mapping[Operation, int]] = {
    "READ": 3,
    "WRITE": 4,
    "DESCRIBE": 8,
    "DESCRIBE_CONFIGS": 10,
}
_NOT_TOLD: Final = -(2**31)
_LETTERS: Final = ("dead-letters", "deliveries", "alerts")
_EVENTS: Final = ("cases", "case-changes", "forms", "users", "locations")
_STATES: Final = ("case-state", "case-folds", "form-state", "user-state", "location-state")
_REPLAYS: Final = "replays"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a role does with topics (short names), and whether it has a consumer group."""

    reads: Sequence[str] = ()
    writes: Sequence[str] = ()
    group: bool = True


@dataclass(frozen=True, slots=True)
class Denied:
    """An operation that a user may not do, and a role that needs it. `what`: topic or group."""

    what: str
    name: str
    operation: Operation
    role: str

    def __str__(self) -> str:
        return (
            f"the user of [kafka] may not {self.operation} the {self.what} {self.name}, which "
            f"{self.role} has to; run kafka-acls --add --allow-principal User:NAME --operation "
            f"{self.operation} --{self.what} {self.name}"
        )


def needs(sinks: Mapping[str, Sequence[str]]) -> Mapping[str, Needs]:
    """Return what each role needs; `sinks` maps their names to what they read (short names)."""
    return {
        "ingress": Needs(writes=("captured", "bodies"), group=False),
        "streams": Needs(
            reads=("captured", "bodies", _REPLAYS, *_EVENTS, *_STATES),
            writes=(*_EVENTS, *_STATES, *_LETTERS, "form-stubs", "app-changes", "custom"),
        ),
        **{
            f"sink-{name}": Needs(reads=(*topics, _REPLAYS), writes=_LETTERS)
            for name, topics in sinks.items()
        },
        "alerts": Needs(
            reads=(*_LETTERS, "dead-letter-state", "alert-state"), writes=("alerts", "alert-state")
        ),
    }


class _MetadataResponse(Response):  # type: ignore[misc, no-any-unimported]
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(
                ("node_id", Int32),
                ("host", String("utf-8")),
                ("port", Int32),
                ("rack", String("utf-8")),
            ),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("authorized_operations", Int32),
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc, no-any-unimported]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _Metadata(Request[_MetadataStruct]):  # type: ignore[misc, no-any-unimported]
    """Kafka's Metadata in version 8, the first that tells the operations (aiokafka knows 5)."""

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(list(self._topics), False, False, True)  # noqa: FBT003


class _GroupStruct(RequestStruct):  # type: ignore[misc, no-any-unimported]
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_authorized_operations", Boolean))


class _Group(Request[_GroupStruct]):  # type: ignore[misc, no-any-unimported]
    """Kafka's DescribeGroups in version 3; aiokafka's own reads the answer as version 2."""

    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class([self._group], True)  # noqa: FBT003


async def permissions(config: Config) -> Sequence[str]:
    """Look whether the roles that run here, or all if none does, may do what they have to."""
    kafka = config.cluster
    sinks = {name: sink.sources for name, sink in config.sinks.items()}
    wanted = needs(sinks)
    here = {each.role for each in running(config.run_dir)} & wanted.keys()
    judged = {role: each for role, each in wanted.items() if role in here or not here}
    groups = [kafka.group(role) for role, each in judged.items() if each.group]
    async with admin(kafka) as client:
        topics_may = await _topics(client, [kafka.topic(name) for name in TOPICS])
        told = {group: await _group(client, group) for group in groups}
    groups_may = {group: may for group, may in told.items() if may is not None}
    return [str(each) for each in denials(kafka, judged, topics_may, groups_may)]


def denials(
    kafka: KafkaSettings,
    wanted: Mapping[str, Needs],
    topics_may: Mapping[str, AbstractSet[Operation]],
    groups_may: Mapping[str, AbstractSet[Operation]],
) -> Iterator[Denied]:
    """Yield what is needed and not allowed, each operation once. Names are full ones."""
    seen = set()
    for role, each in wanted.items():
        steps = [("topic", kafka.topic(name), "READ") for name in each.reads]
        steps += [("topic", kafka.topic(name), "WRITE") for name in each.writes]
        steps += [("group", kafka.group(role), "READ")] if each.group else []
        for what, name, operation in steps:
            may = topics_may if what == "topic" else groups_may
            # A topic that is missing is told of elsewhere.
            if name in may and operation not in may[name] and (name, operation) not in seen:
                seen.add((name, operation))
                yield Denied(what, name, operation, role)


async def _topics(client: Any, names: Sequence[str]) -> Mapping[str, AbstractSet[Operation]]:
    answer = await ask(client, _Metadata(names))
    may: dict[str, AbstractSet[Operation]] = {}
    for error, name, _internal, _partitions, operations in answer.topics:
        if error == TopicAuthorizationFailedError.errno:
            may[name] = frozenset()
        elif error == 0:
            may[name] = allowed(operations)
    return may


async def _group(client: Any, group: str) -> AbstractSet[Operation] | None:
    """Return what may be done with a group; None if the broker does not tell: it has none yet."""
    try:
        node = await with_coordinator(lambda: client.find_coordinator(group))
    except GroupAuthorizationFailedError:
        return frozenset()
    answer = await ask(client, _Group(group), node)
    ((error, *_, operations),) = answer.groups
    if error == GroupAuthorizationFailedError.errno:
        return frozenset()
    return None if operations == _NOT_TOLD else allowed(operations)


def allowed(bits: int) -> AbstractSet[Operation]:
    """Return the operations that an answer's bits stand for."""
    return frozenset(name for name, number in _OPERATIONS.items() if bits >> number & 1)
