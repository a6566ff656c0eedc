import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TypeAlias

import pytest
from prometheus_client import CollectorRegistry

from ingress.auth import Credential
from ingress.settings import IngressSettings
from tests.ingress.rig import Rig, running
from tests.kafka_tools import create_topics
from tests.servers import KafkaServer

StartRig: TypeAlias = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def start(kafka: KafkaServer, prefix: str) -> AsyncIterator[StartRig]:
    """Start an ingress of the given settings, on topics of its own."""
    async with contextlib.AsyncExitStack() as stack:

        async def start_one(
            settings: IngressSettings | None = None,
            domains: Collection[str] = ("demo",),
            credentials: Collection[Credential] = (),
        ) -> Rig:
            bootstrap = kafka.bootstrap_servers
            await create_topics(bootstrap, prefix, ["captured", "bodies"])
            rig = Rig(bootstrap, prefix, settings or IngressSettings(), CollectorRegistry())
            return await stack.enter_async_context(running(rig, domains, credentials))

        yield start_one


@pytest.fixture
async def rig(start: StartRig) -> Rig:
    """An ingress with default settings that knows the domain `demo`."""
    return await start()
