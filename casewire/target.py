"""The options of the commands that post: where to, and as whom."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar
from urllib.parse import urljoin

import click

from casewire.files import FILE
from casewire.forwarder import HOURS_AS_SECONDS, Options
from casewire.hq import Generation
from casewire.hq_logins import Digest, Login, basic, bearer, client_credentials
from schemas.errors import ConfigError

Way: TypeAlias = Literal["basic", "digest", "bearer", "oauth2", "oauth2-body"]

DEFAULT_ADDRESS: Final = "http://127.0.0.1:8080/api/v1/in/demo"

_WAYS: Final[tuple[Way, ...]] = ("basic", "digest", "bearer", "oauth2", "oauth2-body")

Command = TypeVar("Command", bound=Callable[..., Any])


def target_options(command: Command) -> Command:
    """Add the options that say where to post and as whom; `Target` takes them."""
    for option in reversed(
        (
            click.option("--to", default=DEFAULT_ADDRESS, show_default=True, help="The address."),
            click.option("--auth", type=click.Choice(_WAYS), default="basic", show_default=True,
                         help="How --user logs in, as in HQ's Connection Settings. oauth2 passes "
                         "the credentials in the header, oauth2-body does not."),
            click.option("--user", default="", help="User name, or client id of OAuth 2."),
            click.option("--password-file", type=FILE,
                         help="File with the password of --user, or its client secret."),
            click.option("--token-url", default="",
                         help="Where OAuth 2 gets its token; else /oauth/token of the address."),
            click.option("--api-key-file", type=FILE, help="File with an API key, sent verbatim."),
            click.option("--api-key-header", default="Authorization", show_default=True),
            click.option("--generation", type=click.Choice(["A", "B"]), default="B",
                         show_default=True, help="HQ's rules for answers: A until March 2025."),
            click.option("--scale", type=click.FloatRange(0), default=HOURS_AS_SECONDS,
                         help="Factor on HQ's waits; the default makes an hour a second."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The values of `target_options`."""

    to: str
    auth: Way
    user: str
    password_file: Path | None
    token_url: str
    api_key_file: Path | None
    api_key_header: str
    generation: Generation
    scale: float

    @classmethod
    def chosen(cls, values: Mapping[str, Any]) -> Self:
        """Take what is ours of a command's values."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})

    def options(self) -> Options:
        """Raise click.UsageError if the options of the login do not fit together."""
        return Options(generation=self.generation, scale=self.scale, login=self._login())

    def _login(self) -> Login | None:
        if bool(self.user) != bool(self.password_file):
            raise click.UsageError("give --user and --password-file together")
        if self.password_file and self.api_key_file:
            raise click.UsageError("give --user or --api-key-file, not both")
        if self.api_key_file:
            return self.api_key_header, _secret(self.api_key_file)
        if self.password_file:
            return self._login_of_user(_secret(self.password_file))
        if self.auth != "basic":
            raise click.UsageError(f"--auth {self.auth} needs --user and --password-file")
        return None

    def _login_of_user(self, secret: str) -> Login:
        match self.auth:
            case "basic":
                return basic(self.user, secret)
            case "digest":
                return Digest(self.user, secret)
            case "bearer":
                return self._bearer(secret)
            case "oauth2" | "oauth2-body":
                place = self.token_url or urljoin(self.to, "/oauth/token")
                in_header = self.auth == "oauth2"
                return client_credentials(place, self.user, secret, in_header=in_header)

    def _bearer(self, secret: str) -> Login:
        try:
            return bearer(self.to, self.user, secret)
        except ValueError as error:
            raise click.UsageError(str(error)) from error


def _secret(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as a secret; write it as UTF-8 text") from error
