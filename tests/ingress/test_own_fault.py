"""Whatever goes wrong on our side is a 503, and the log tells neither body nor headers."""

import asyncio
import uuid
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Message
from structlog.testing import capture_logs

from ingress.access import Access
from ingress.app import IngressApp, create_app
from ingress.auth import policy
from ingress.publisher import Place
from ingress.records import Event
from ingress.settings import IngressSettings
from schemas.errors import ConfigError

pytestmark = pytest.mark.anyio


class FailingPublisher:
    """Does to every event what it is told."""

    def __init__(self, failure: Callable[[Event], BaseException]) -> None:
        self._failure = failure

    async def start(self) -> None:
        pass

    async def publish(self, event: Event) -> Place:
        raise self._failure(event)

    def ready(self) -> str | None:
        return None

    async def stop(self) -> None:
        pass


def make_app(settings: IngressSettings, publisher: FailingPublisher) -> IngressApp:
    registry = CollectorRegistry()
    return create_app(settings, Access(policy((), ()), registry), publisher, registry)


async def post(publisher: FailingPublisher) -> tuple[int, bytes]:
    app = make_app(IngressSettings(), publisher)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"a secret", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    path = "/api/v1/in/demo"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
    await app(scope | {"query_string": b"", "headers": [(b"content-length", b"8")]}, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def test_an_unexpected_error_is_503_and_its_text_is_not_logged() -> None:
    with capture_logs() as logs:
        status, text = await post(FailingPublisher(lambda event: RuntimeError(event.body)))
    assert status == 503
    assert b"secret" not in text
    assert [log["error"] for log in logs] == ["RuntimeError"]
    assert uuid.UUID(logs[0]["event_id"]).version == 7
    assert "secret" not in str(logs)


async def test_a_request_that_the_shutdown_cuts_off_hears_503() -> None:
    status, text = await post(FailingPublisher(lambda _: asyncio.CancelledError()))
    assert status == 503
    assert b"shutting down" in text


def test_limits_that_contradict_each_other_are_refused() -> None:
    settings = IngressSettings(max_body_bytes=2, max_in_flight_bytes=1)
    publisher = FailingPublisher(RuntimeError)
    with pytest.raises(ConfigError, match="max_in_flight_bytes"):
        make_app(settings, publisher)
