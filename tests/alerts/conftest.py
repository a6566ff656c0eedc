"""A real mail server and a real HTTP receiver, which show what came."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from aiohttp import web
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from casewire.alerts.settings import AlertSettings
from tests.servers import free_port


@dataclass
class Mailbox:
    """What the mail server took; `refuses` has it take nothing for now."""

    port: int
    mails: list[EmailMessage] = field(default_factory=list)
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)
    refuses: bool = False
    refused: int = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.refuses:
            self.refused += 1
            return "451 try again later"
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"

    def log_in(
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        mechanism: str,
        auth: LoginPassword,
    ) -> AuthResult:
        self.logins.append((auth.login, auth.password))
        return AuthResult(success=auth.password == b"right", handled=False)

    def settings(self, **more: Any) -> AlertSettings:
        """Return settings that mail here."""
        given: dict[str, Any] = {
            "mail_to": ["night@example.org", "day@example.org"],
            "mail_from": "casewire@example.org",
            "smtp_host": "127.0.0.1",
            "smtp_port": self.port,
            "smtp_security": "none",
        }
        return AlertSettings(**(given | more))


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    box = Mailbox(free_port())
    with running_mail(box):
        yield box


@contextlib.contextmanager
def running_mail(box: Mailbox, **more: Any) -> Iterator[None]:
    controller = Controller(
        box, hostname="127.0.0.1", port=box.port, authenticator=box.log_in, **more
    )
    controller.start()
    try:
        yield
    finally:
        controller.stop()


@dataclass
class Receiver:
    """What came by HTTP: the path and the JSON of each request."""

    port: int
    received: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    status: int = 200

    async def take(self, request: web.Request) -> web.Response:
        self.received.append((request.path, await request.json()))
        return web.Response(status=self.status, text="ok")

    def url(self, scheme: str, path: str = "hook") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/{path}"


@contextlib.asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    here = Receiver(free_port())
    application = web.Application()
    application.router.add_post("/{path:.*}", here.take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", here.port, ssl_context=tls).start()
    try:
        yield here
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as here:
        yield here
