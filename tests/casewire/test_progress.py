"""How far a group is, also from a broker that has just become its coordinator."""

import io
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError
from aiokafka.protocol.admin import DescribeGroupsResponse_v1
from aiokafka.protocol.commit import OffsetFetchResponse_v3

from casewire.progress import committed_offsets, members_of
from casewire.topics import admin
from schemas.settings import KafkaSettings
from tests.kafka_tools import create_topics
from tests.servers import KafkaServer

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

#: COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR.
PASSING = (14, 15, 16)


def offsets_answer(code: int) -> Any:
    """OffsetFetch v3 as a broker writes it: throttle time, no topic, the error of the group."""
    data = b"\0\0\0\0" + b"\0\0\0\0" + code.to_bytes(2, "big")
    return OffsetFetchResponse_v3.decode(io.BytesIO(data))


def group_answer(code: int) -> Any:
    """DescribeGroups v1: throttle time, one group with an error, and four empty fields."""
    data = b"\0\0\0\0" + b"\0\0\0\1" + code.to_bytes(2, "big") + b"\0\1g" + b"\0\0" * 3
    return DescribeGroupsResponse_v1.decode(io.BytesIO(data + b"\0\0\0\0"))


async def test_a_coordinator_that_is_loading_is_asked_again(
    kafka: KafkaServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first answers say nothing but that: they are no group without any offset or member."""
    monkeypatch.setattr("casewire.progress._POLL_SECONDS", 0)
    await create_topics(kafka.bootstrap_servers, prefix, ["captured"], 1)
    topic, group = f"{prefix}captured", f"{prefix}group"
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    async with (
        AIOKafkaConsumer(
            topic,
            bootstrap_servers=kafka.bootstrap_servers,
            group_id=group,
            client_id="reader",
            enable_auto_commit=False,
        ) as consumer,
        admin(settings) as client,
    ):
        await consumer.commit({TopicPartition(topic, 0): 7})
        send = client._send_request
        first: list[Any] = []

        async def answer(request: Any, node: int | None = None) -> Any:
            asks = request.API_KEY in (OffsetFetchResponse_v3.API_KEY, group_answer(0).API_KEY)
            return first.pop() if asks and first else await send(request, node)

        monkeypatch.setattr(client, "_send_request", answer)
        first += map(offsets_answer, PASSING)
        assert await committed_offsets(client, group) == {(topic, 0): 7}
        first += map(group_answer, PASSING)
        assert [member.client_id for member in await members_of(client, group)] == ["reader"]
        assert not first
        first.append(offsets_answer(GroupAuthorizationFailedError.errno))
        with pytest.raises(GroupAuthorizationFailedError):
            await committed_offsets(client, group)
