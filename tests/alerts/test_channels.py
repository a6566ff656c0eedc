"""Channels to real servers: what they take, and what they say if they do not."""

import asyncio
import ssl
from pathlib import Path

import pytest
from apprise.plugins.slack import NotifySlack

from casewire.alerts.channels import channels
from casewire.alerts.messages import Message
from casewire.alerts.settings import AlertSettings, with_secrets
from schemas.errors import ConfigError, UnavailableError
from tests.alerts.conftest import Mailbox, Receiver, receiving, running_mail
from tests.hq.certificates import Certificate, make_certificate
from tests.servers import free_port

pytestmark = pytest.mark.anyio

MESSAGE = Message("[Casewire] demo: Größe", "first line\nsecond line: ü\n", "demo/a/b/c")


def test_a_mail_is_plain_text_to_all_and_nobodys_holiday_notice_answers(mailbox: Mailbox) -> None:
    send = channels(mailbox.settings())["mail"]
    send(MESSAGE)
    send(MESSAGE)
    first, second = mailbox.mails
    assert first["Subject"] == MESSAGE.title
    assert first["To"] == "night@example.org, day@example.org"
    assert first["Auto-Submitted"] == "auto-generated"
    assert first.get_content_type() == "text/plain"
    assert first.get_content().replace("\r\n", "\n") == MESSAGE.body
    assert first["References"] == second["References"]
    assert first["Message-ID"] != second["Message-ID"]


def test_a_server_that_is_not_there_is_one_sentence(mailbox: Mailbox) -> None:
    mailbox.refuses = True
    with pytest.raises(UnavailableError, match=r"\(SMTPDataError 451\); check \[alerts\] smtp"):
        channels(mailbox.settings())["mail"](MESSAGE)
    with pytest.raises(UnavailableError, match="ConnectionRefusedError"):
        channels(mailbox.settings(smtp_port=free_port()))["mail"](MESSAGE)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_password_goes_only_through_tls(
    security: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_certificate(tmp_path)
    context = serving(made)
    # aiosmtpd takes only what STARTTLS made for TLS.
    tls: dict[str, dict[str, object]] = {
        "starttls": {"tls_context": context},
        "tls": {"ssl_context": context, "auth_require_tls": False},
    }
    box = Mailbox(free_port())
    more = {"smtp_security": security, "smtp_username": "casewire"}
    right = box.settings(**more, smtp_password="right")
    with running_mail(box, **tls[security]):
        with pytest.raises(UnavailableError, match="SSLCertVerificationError"):
            channels(right)["mail"](MESSAGE)
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
        channels(right)["mail"](MESSAGE)
        wrong = box.settings(**more, smtp_password="wrong")
        with pytest.raises(UnavailableError, match=r"SMTPAuthenticationError 535"):
            channels(wrong)["mail"](MESSAGE)
    assert set(box.logins) == {(b"casewire", b"right"), (b"casewire", b"wrong")}
    assert len(box.mails) == 1


def serving(made: Certificate) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)
    return context


async def test_a_webhook_gets_the_text(receiver: Receiver) -> None:
    name, send = next(iter(channels(AlertSettings(urls=[receiver.url("json")])).items()))
    await asyncio.to_thread(send, MESSAGE)
    path, sent = receiver.received[0]
    assert (name, path, sent["title"]) == ("json-1", "/hook", MESSAGE.title)
    assert "second line: ü" in str(sent["message"])
    receiver.status = 500
    with pytest.raises(UnavailableError, match=r"\[alerts\] urls number 1 took no message"):
        await asyncio.to_thread(send, MESSAGE)


async def test_slack_and_teams_get_it_as_they_want_it(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slack's host is fixed in Apprise, and is ours here; Teams' is part of the address."""
    monkeypatch.setattr(NotifySlack, "webhook_url", receiver.url("http", "services"))
    slack = f"slack://T1JJ3T3L2/A1BRTD4JD/{'T' * 24}"
    made = make_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made.authority))
    async with receiving(serving(made)) as teams:
        at_teams = f"workflows://127.0.0.1:{teams.port}/flow/signature/"
        for send in channels(AlertSettings(urls=[slack, at_teams])).values():
            await asyncio.to_thread(send, MESSAGE)
        ((path, card),) = teams.received
    assert path.startswith("/workflows/flow/")
    assert card["type"] == "message"
    assert "second line: ü" in str(card)
    ((path, sent),) = receiver.received
    assert path == f"/services/T1JJ3T3L2/A1BRTD4JD/{'T' * 24}"
    assert MESSAGE.title in str(sent)
    assert "second line: ü" in str(sent)


def test_an_address_that_nobody_knows_is_named_by_its_number_and_not_told() -> None:
    with pytest.raises(ConfigError, match="number 2") as error:
        channels(AlertSettings(urls=["json://localhost", "slak://secret/token"]))
    assert "secret" not in str(error.value)


def test_files_hold_the_secrets(tmp_path: Path) -> None:
    (tmp_path / "urls").write_text("# Slack\nslack://a/b/c\n\n json://host \n", encoding="utf-8")
    (tmp_path / "smtp").write_text("geheim\n", encoding="utf-8")
    errors: list[str] = []
    settings = AlertSettings(urls_file="urls", smtp_password_file="smtp", smtp_username="me")
    read = with_secrets(settings, tmp_path, errors)
    assert (read.smtp_password, list(read.urls)) == ("geheim", ["slack://a/b/c", "json://host"])
    assert errors == []
    with_secrets(AlertSettings(urls_file="nowhere"), tmp_path, errors)
    assert errors[0].startswith("[alerts] urls_file:")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (AlertSettings(mail_to=["a@b"], smtp_host="h"), "mail_from"),
        (AlertSettings(mail_to=["a@b"], mail_from="c@d"), "smtp_host"),
        (AlertSettings(smtp_username="me"), "smtp_username"),
        (AlertSettings(smtp_password="x"), "smtp_username"),
        (AlertSettings(smtp_password="x", smtp_password_file="f", smtp_username="me"), "smtp_pass"),
        (
            AlertSettings(smtp_username="me", smtp_password="x", smtp_security="none"),
            "smtp_security",
        ),
        (AlertSettings(), ""),
    ],
)
def test_what_does_not_go_together_is_said(settings: AlertSettings, key: str) -> None:
    said = list(settings.problems())
    assert len(said) == bool(key)
    assert all(each.startswith(key) for each in said)
