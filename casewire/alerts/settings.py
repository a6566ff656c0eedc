"""`[alerts]` of casewire.toml."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from casewire.tables import read_secret
from schemas.settings import NotNegative, Port, Positive, Table


class AlertSettings(Table, frozen=True, kw_only=True):
    """Who is told of troubles, and how often.

    Mail goes to `mail_to` by way of `smtp_host`. `urls` are those of other services, as Apprise
    has them: Slack, Teams, a webhook and many more; `urls_file` has one a line, since they hold
    secrets. No trouble is told of more often than each `interval_minutes`.

    `silence_hours`: after so many hours without a single event, in which events usually come, a
    project space and kind is told to be silent; 0 never.
    """

    mail_to: Sequence[str] = ()
    mail_from: str = ""
    smtp_host: str = ""
    smtp_port: Port = 587
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    smtp_username: str = ""
    smtp_password: str = ""
    smtp_password_file: str = ""
    urls: Sequence[str] = ()
    urls_file: str = ""
    interval_minutes: Positive = 15
    silence_hours: NotNegative = 6

    @property
    def tells_somebody(self) -> bool:
        """Whether there is a way to people, once secrets are read."""
        return bool(self.mail_to or self.urls)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong between keys that are each right: `key: what; remedy`."""
        for key in ("mail_from", "smtp_host"):
            if self.mail_to and not getattr(self, key):
                yield f"{key}: missing; mail_to needs it, add it"
        if self.smtp_password and self.smtp_password_file:
            yield "smtp_password: stands beside smtp_password_file; remove one of the two"
        if bool(self.smtp_username) != bool(self.smtp_password or self.smtp_password_file):
            yield "smtp_username: goes with smtp_password_file; give both, or neither"
        if self.smtp_username and self.smtp_security == "none":
            yield 'smtp_security: "none" would show the password; write "starttls" or "tls"'


def with_secrets(settings: AlertSettings, folder: Path, errors: list[str]) -> AlertSettings:
    """Return the settings with what their files hold, relative to `folder`, read into them."""
    password, urls = settings.smtp_password, list(settings.urls)
    if settings.smtp_password_file:
        place = ("alerts", "smtp_password_file")
        password = read_secret(folder / settings.smtp_password_file, place, errors)
    if settings.urls_file:
        lines = read_secret(folder / settings.urls_file, ("alerts", "urls_file"), errors)
        urls += [line for line in map(str.strip, lines.splitlines()) if line[:1] not in ("", "#")]
    return msgspec.structs.replace(
        settings, smtp_password=password, smtp_password_file="", urls=urls, urls_file=""
    )
