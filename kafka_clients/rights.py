"""What each role may do on the cluster: the one table of rights, and asking whether we have them.

Rights are Kafka's ACLs. A name that ends in `*` is a prefix. A broker without an authorizer allows
everything, and says so.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from aiokafka.protocol.admin import DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from kafka_clients.login import login_of
from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS

Resource: TypeAlias = Literal["topic", "group"]

_STATES: Final = ("case-state", "form-state", "user-state", "location-state", "case-folds")
_JUDGED: Final = ("cases", "case-changes", "forms", "users", "locations")
_TOLD: Final = ("dead-letters", "alerts", "deliveries")
_DECIDED: Final = ("replays", "dead-letter-state", "alert-state", "alerts")

#: Bits of `authorized operations` (KIP-430).
_BITS: Final[Mapping[str, int]] = {
    "Read": 3, "Write": 4, "Create": 5, "Alter": 7, "Describe": 8, "DescribeConfigs": 10,
    "AlterConfigs": 11,
}  # fmt: skip
_NOT_ALLOWED_TOPIC: Final = 29
_NOT_ALLOWED_GROUP: Final = 30
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """An operation, in Kafka's words, on a topic or group (full name, or prefix and `*`)."""

    resource: Resource
    name: str
    operation: str

    def __str__(self) -> str:
        return f"{self.operation} of {self.resource} {self.name}"


def rights(
    kafka: KafkaSettings, sources: Mapping[str, Sequence[str]]
) -> Mapping[str, Sequence[Right]]:
    """Return what each role needs; `sources` are the topics (short names) that each sink reads."""
    every_topic = Right("topic", kafka.topic("*"), "Describe")
    every_group = Right("group", kafka.group("*"), "Describe")
    read_all = Right("topic", kafka.topic("*"), "Read")

    def on(operation: str, names: Iterable[str]) -> list[Right]:
        return [Right("topic", kafka.topic(name), operation) for name in names]

    def member(role: str) -> Right:
        return Right("group", kafka.group(role), "Read")

    return {
        "ingress": on("Write", ("captured", "bodies")),
        "streams": [
            every_topic,
            member("streams"),
            *on("Read", ("captured", "bodies", "replays", *_JUDGED, *_STATES)),
            *on("Write", (*_JUDGED, "form-stubs", "app-changes", "custom", *_STATES, *_TOLD)),
        ],
        **{
            f"sink-{name}": [
                every_topic,
                member(f"sink-{name}"),
                *on("Read", (*topics, "replays")),
                *on("Write", _TOLD),
            ]
            for name, topics in sources.items()
        },
        "alerts": [
            every_topic,
            every_group,
            member("alerts"),
            read_all,
            *on("Write", ("alerts", "alert-state")),
        ],
        "operator": [
            every_topic,
            every_group,
            read_all,
            Right("topic", kafka.topic("*"), "DescribeConfigs"),
            *on("Write", _DECIDED),
        ],
        "administrator": [
            Right("topic", kafka.topic("*"), operation)
            for operation in ("Create", "Describe", "DescribeConfigs", "AlterConfigs")
        ],
    }


def acl_commands(kafka: KafkaSettings, wanted: Sequence[Right], user: str) -> Sequence[str]:
    """Return the lines for a shell that give a user these rights."""
    tool = (
        "kafka-acls", "--bootstrap-server", kafka.bootstrap_servers,
        "--command-config", "admin.properties", "--add", "--allow-principal", f"User:{user}",
    )  # fmt: skip
    alike: dict[tuple[str, ...], list[str]] = {}
    for right in wanted:
        kind = ("--resource-pattern-type", "prefixed") if right.name.endswith("*") else ()
        named = alike.setdefault(("--operation", right.operation, *kind), [])
        named += [f"--{right.resource}", right.name.removesuffix("*")]
    return [shlex.join([*tool, *what, *names]) for what, names in alike.items()]


async def require_rights(client: Any, kafka: KafkaSettings, wanted: Sequence[Right]) -> None:
    """Raise UnavailableError that names the rights that we lack.

    `client` is an AIOKafkaClient. Raises KafkaError if the broker does not answer.
    """
    lacking = await lacking_rights(client, kafka, wanted)
    if lacking:
        shown = ", ".join(map(str, lacking[:_SHOWN]))
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise UnavailableError(
            f"the broker at {kafka.bootstrap_servers} does not allow the user "
            f"{login_of(kafka).user or 'ANONYMOUS'} {shown}{more}; "
            "give it the rights that casewire topics acls prints"
        )


async def lacking_rights(
    client: Any, kafka: KafkaSettings, wanted: Sequence[Right]
) -> Sequence[Right]:
    """Return those of the rights that we lack. Raises KafkaError if the broker does not answer."""
    allowed = {**await _on_topics(client, kafka, wanted), **await _on_groups(client, wanted)}
    return [right for right in wanted if not _covered(right, allowed)]


def _covered(right: Right, allowed: Mapping[tuple[str, str], int]) -> bool:
    """Whether a right is given by the operations that are allowed, by resource and name.

    What is on no resource that we asked for is not judged: a prefix stands for what there is now.
    """
    return all(
        operations >> _BITS[right.operation] & 1
        for (resource, name), operations in allowed.items()
        if resource == right.resource and _is_on(name, right)
    )


def _is_on(name: str, right: Right) -> bool:
    prefix = right.name.removesuffix("*")
    return name == right.name or (prefix != right.name and name.startswith(prefix))


async def _on_topics(
    client: Any, kafka: KafkaSettings, wanted: Sequence[Right]
) -> Mapping[tuple[str, str], int]:
    meant = [right for right in wanted if right.resource == "topic"]
    names = [full for full in map(kafka.topic, TOPICS) if any(_is_on(full, each) for each in meant)]
    answer = await client.send(client.get_random_node(), _AskRights(names))
    return {
        ("topic", name): operations
        for code, name, _internal, _partitions, operations in answer.topics
        if code in (0, _NOT_ALLOWED_TOPIC)
    }


async def _on_groups(client: Any, wanted: Iterable[Right]) -> Mapping[tuple[str, str], int]:
    """Ask for the groups that are named; not for a prefix, whose groups may not be there yet."""
    found: dict[tuple[str, str], int] = {}
    for right in wanted:
        if right.resource == "group" and not right.name.endswith("*"):
            operations = await _on_group(client, right.name)
            if operations is not None:
                found["group", right.name] = operations
    return found


async def _on_group(client: Any, group: str) -> int | None:
    """Return what we may do with a group; None while no broker coordinates it."""
    answer = await client.send(client.get_random_node(), FindCoordinatorRequest(group, 0))
    if answer.error_code == _NOT_ALLOWED_GROUP:
        return 0
    if answer.error_code:
        return None
    found = await client.send(answer.coordinator_id, _AskGroupRights(group))
    ((code, *_, operations),) = found.groups
    if code == _NOT_ALLOWED_GROUP:
        return 0
    return None if code else int(operations)


class _RightsAnswer(Response):  # type: ignore[misc, no-any-unimported]
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
        ("cluster_authorized_operations", Int32),
    )


class _RightsRequest(RequestStruct):  # type: ignore[misc, no-any-unimported]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _RightsAnswer
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _AskRights(Request[_RightsRequest]):  # type: ignore[misc, no-any-unimported]
    """Metadata of topics with what we may do there (KIP-430), which aiokafka does not ask for."""

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_RightsRequest]) -> _RightsRequest:
        return request_struct_class(list(self._topics), False, False, True)  # noqa: FBT003


class _GroupRightsRequest(RequestStruct):  # type: ignore[misc, no-any-unimported]
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_authorized_operations", Boolean))


class _AskGroupRights(Request[_GroupRightsRequest]):  # type: ignore[misc, no-any-unimported]
    """A group with what we may do with it; aiokafka reads a version before."""

    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[_GroupRightsRequest]) -> _GroupRightsRequest:
        return request_struct_class([self._group], True)  # noqa: FBT003
