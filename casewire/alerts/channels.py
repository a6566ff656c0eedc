"""The ways to people: a mail server, and whatever Apprise knows the way to."""

import smtplib
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from hashlib import sha256
from typing import Final, TypeAlias

from casewire.alerts.messages import Message
from casewire.alerts.settings import AlertSettings
from schemas.errors import ConfigError, UnavailableError

_SECONDS: Final = 30

Channel: TypeAlias = Callable[[Message], None]
"""Sends a message; returns when it is taken, else raises UnavailableError. May take a minute."""


def channels(settings: AlertSettings) -> Mapping[str, Channel]:
    """Return every channel of `[alerts]` by a name that tells no secret. Raises ConfigError."""
    found: dict[str, Channel] = {}
    if settings.mail_to:
        found["mail"] = _mail(settings)
    for number, url in enumerate(settings.urls, 1):
        found[f"{url.partition(':')[0]}-{number}"] = _service(url, number)
    return found


def _mail(settings: AlertSettings) -> Channel:
    def send(message: Message) -> None:
        try:
            with _connected(settings) as server:
                server.send_message(mail(message, settings.mail_from, settings.mail_to))
        except (OSError, smtplib.SMTPException) as error:
            code = getattr(error, "smtp_code", "")
            raise UnavailableError(
                f"the mail server {settings.smtp_host}:{settings.smtp_port} does not take mail "
                f"({type(error).__name__}{f' {code}' if code else ''}); check [alerts] smtp_*"
            ) from error

    return send


@contextmanager
def _connected(settings: AlertSettings) -> Iterator[smtplib.SMTP]:
    host, port = settings.smtp_host, settings.smtp_port
    server: smtplib.SMTP
    if settings.smtp_security == "tls":
        context = ssl.create_default_context()
        server = smtplib.SMTP_SSL(host, port, timeout=_SECONDS, context=context)
    else:
        server = smtplib.SMTP(host, port, timeout=_SECONDS)
    with server:
        if settings.smtp_security == "starttls":
            server.starttls(context=ssl.create_default_context())
        if settings.smtp_username:
            server.login(settings.smtp_username, settings.smtp_password)
        yield server


def mail(message: Message, sender: str, to: Sequence[str]) -> EmailMessage:
    """Return a message as a mail. All mails of one trouble make one thread in a mailbox."""
    made = EmailMessage()
    made["Subject"] = message.title
    made["From"] = sender
    made["To"] = ", ".join(to)
    made["Date"] = format_datetime(datetime.now(UTC))
    host = sender.rpartition("@")[2].strip("> ")
    made["Message-ID"] = make_msgid(domain=host)
    if message.thread:
        made["References"] = f"<{sha256(message.thread.encode()).hexdigest()[:32]}@{host}>"
    # Nobody's holiday notice is to answer it (RFC 3834).
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(message.body)
    return made


def _service(url: str, number: int) -> Channel:
    # Most installations mail only, and it is large.
    from apprise import Apprise, NotifyFormat  # noqa: PLC0415

    service = Apprise()
    if not service.add(url):
        raise ConfigError(
            f"[alerts] urls: number {number} is no address that Apprise knows; "
            "see https://appriseit.com/services/"
        )

    def send(message: Message) -> None:
        if not service.notify(
            title=message.title, body=message.body, body_format=NotifyFormat.TEXT
        ):
            raise UnavailableError(
                f"the service of [alerts] urls number {number} took no message; the log says why"
            )

    return send
