"""`casewire auth`: credentials with which CommCare HQ may forward."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final, get_args

import click
import orjson

from casewire.auth_file import SECRETS, locked, read_entries, write_entries, write_private
from casewire.cli import Launch
from casewire.config import CREDENTIALS_FILE, Config
from casewire.connecting import CONNECTION_PLACE, IN_HQ, address, aligned_lines, login
from casewire.tables import NAME_PATTERN
from ingress.auth import NAMED_KINDS, Credential, Kind
from ingress.secrets_store import ha1_text, new_secret, scrypt_text, sha256_text, stored_form
from ingress.settings import CredentialSettings
from schemas.errors import ConfigError

_ROTATED: Final = re.compile(r"-\d{8}(?:-\d+)?$")


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret for a person, and the line that is stored of it. `shown`: nobody has it yet."""

    text: str
    stored: str
    shown: bool


@click.group(epilog="Example: casewire auth list")
def auth() -> None:
    """Make, change, list and remove the credentials with which CommCare HQ may forward.

    They are written to credentials.toml beside casewire.toml. A running ingress takes them within
    a few seconds.
    """


@auth.command(
    epilog="Example: casewire auth add hq --domain my-project --kind basic --username commcare-hq"
)
@click.argument("name")
@click.option(
    "--domain",
    "domains",
    required=True,
    multiple=True,
    help="A project space, as in HQ's address /a/DOMAIN/; may be given more than once.",
)
@click.option("--kind", required=True, type=click.Choice(get_args(Kind)), help="How HQ sends it.")
@click.option("--username", help="User name or client id; all kinds but api-key need one.")
@click.option("--header", default="authorization", help="The header of an API key.")
@click.option(
    "--password-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with a password of yours. Without it a secret is made, and shown once.",
)
@click.pass_obj
def add(launch: Launch, /, name: str, password_file: Path | None, **given: object) -> None:
    """Add the credential NAME and say what to enter in CommCare HQ."""
    _, folder = _configured(launch)
    credential = Credential(
        name=name,
        domains=list(_texts(given["domains"])),
        kind=_kind(str(given["kind"])),
        username=str(given["username"] or ""),
        header=str(given["header"]),
        secret="",
    )
    with locked(folder):
        _check_new(credential, launch.config())
        secret = _secret(credential, password_file)
        _store(folder, credential, secret)
    click.echo(f"Added the credential {name}.\n")
    click.echo(instructions(credential, secret))


@auth.command(epilog="Example: casewire auth rotate hq")
@click.argument("name")
@click.option(
    "--password-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with a password of yours. Without it a secret is made, and shown once.",
)
@click.pass_obj
def rotate(launch: Launch, name: str, password_file: Path | None) -> None:
    """Add a second secret for what NAME is for; both are right until the old one is revoked."""
    _, folder = _configured(launch)
    with locked(folder):
        config = launch.config()
        old = _found(config, name)
        names = {credential.name for credential in config.credentials}
        new = replace(old, name=next_name(name, names, datetime.now(UTC).date()))
        secret = _secret(new, password_file)
        _store(folder, new, secret)
    click.echo(f"Added {new.name} beside {name}; both are right now.\n")
    click.echo(instructions(new, secret))
    click.echo(
        f"\nWhen the metric casewire_ingress_credential_uses_total of {name} no longer grows,\n"
        f"and HQ's Data Forwarding Records show nothing that waits: casewire auth revoke {name}"
    )


@auth.command("list", epilog="Example: casewire auth list --json")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_obj
def list_credentials(launch: Launch, *, as_json: bool) -> None:
    """List all credentials; never a secret."""
    config = launch.config()
    folder = None if config.file is None else config.file.parent
    ours = {} if folder is None else read_entries(folder)
    if as_json:
        found = [
            {
                "name": each.name,
                "kind": each.kind,
                "domains": list(each.domains),
                "username": each.username,
                "stored_as": stored_form(each.secret),
                "file": CREDENTIALS_FILE if each.name in ours else _file_name(config),
            }
            for each in config.credentials
        ]
        click.echo(orjson.dumps(found))
        return
    for each in config.credentials:
        domains = ", ".join(each.domains)
        click.echo(f"{each.name}  {each.kind}  {domains}  {stored_form(each.secret)}")
    if not config.credentials:
        click.echo("there are no credentials; make one with casewire auth add")


@auth.command(epilog="Example: casewire auth revoke hq-20260101")
@click.argument("name")
@click.pass_obj
def revoke(launch: Launch, name: str) -> None:
    """Remove the credential NAME; what still uses it is refused, and lost."""
    _, folder = _configured(launch)
    with locked(folder):
        config = launch.config()
        old = _found(config, name)
        entries = read_entries(folder)
        if name not in entries:
            raise ConfigError(
                f"{name} stands in {_file_name(config)}, which people edit: remove "
                f"[credentials.{name}] there"
            )
        if bare := _left_bare(config, name):
            raise ConfigError(
                f"{name} is the last credential of {', '.join(bare)}, which would then take "
                "events from anyone: add another one first"
            )
        entry = entries.pop(name)
        write_entries(folder, entries)
        file = folder / entry.secret_file
        if file.parent == folder / SECRETS and file not in _secret_files(folder, entries):
            file.unlink(missing_ok=True)
    click.echo(f"Revoked {old.name}. A running ingress refuses it within a few seconds.")


def instructions(credential: Credential, secret: NewSecret) -> str:
    """Return what to enter in HQ's Connection Settings."""
    shown = f"{secret.text}   (shown this once)" if secret.shown else "the one in your file"
    lines = [*map(address, credential.domains), *login(credential, shown)]
    return f"In CommCare HQ, {CONNECTION_PLACE}:\n{aligned_lines(lines)}"


def next_name(name: str, taken: set[str], today: date) -> str:
    """Return the name of the next secret of a credential: its own with the day, and a number."""
    first = f"{_ROTATED.sub('', name)}-{today:%Y%m%d}"
    names = [first, *(f"{first}-{number}" for number in range(2, len(taken) + 3))]
    return next(each for each in names if each not in taken)


def _configured(launch: Launch) -> tuple[Config, Path]:
    config = launch.config()
    if config.file is None:
        raise ConfigError("there is no casewire.toml here; make one with casewire init")
    return config, config.file.absolute().parent


def _file_name(config: Config) -> str:
    return "the environment" if config.file is None else config.file.name


def _check_new(credential: Credential, config: Config) -> None:
    if not re.fullmatch(NAME_PATTERN, credential.name):
        raise ConfigError(f"{credential.name!r} is no name; it must match {NAME_PATTERN}")
    if any(credential.name == known.name for known in config.credentials):
        raise ConfigError(
            f"there is a credential {credential.name} already; take another name, "
            f"or give it a second secret by casewire auth rotate {credential.name}"
        )
    for domain in credential.domains:
        if domain not in config.domains:
            raise ConfigError(
                f'there is no project space {domain!r}; add [domains."{domain}"] to casewire.toml'
            )
    if credential.kind in NAMED_KINDS and (not credential.username or ":" in credential.username):
        raise ConfigError(f"{credential.kind} needs a user name without a colon; give --username")


def _found(config: Config, name: str) -> Credential:
    for credential in config.credentials:
        if credential.name == name:
            return credential
    raise ConfigError(f"there is no credential {name}; casewire auth list shows all")


def _left_bare(config: Config, name: str) -> Sequence[str]:
    others = [credential for credential in config.credentials if credential.name != name]
    kept = {domain for credential in others for domain in credential.domains}
    return [domain for domain in _found(config, name).domains if domain not in kept]


def _secret(credential: Credential, password_file: Path | None) -> NewSecret:
    """Return a password that a person chose, or a secret that is made now."""
    if password_file is None:
        text = new_secret()
        stored = sha256_text(text)
    else:
        try:
            text = password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{password_file} cannot be read; give another file") from error
        if not text:
            raise ConfigError(f"{password_file} is empty; write the password into it")
        stored = scrypt_text(text)
    if credential.kind == "digest":
        stored = ha1_text(credential.username, text)
    return NewSecret(text, stored, shown=password_file is None)


def _store(folder: Path, credential: Credential, secret: NewSecret) -> None:
    """Write the secret, then the table that names it: a reader finds both or neither."""
    secret_file = f"{SECRETS}/{credential.name}"
    if (folder / secret_file).exists():
        raise ConfigError(f"{folder / secret_file} is there already; move it away")
    write_private(folder / secret_file, f"{secret.stored}\n")
    entries = read_entries(folder)
    entries[credential.name] = CredentialSettings(
        domains=list(credential.domains),
        kind=credential.kind,
        secret_file=secret_file,
        username=credential.username,
        header=credential.header,
    )
    write_entries(folder, entries)


def _secret_files(folder: Path, entries: Mapping[str, CredentialSettings]) -> set[Path]:
    return {folder / entry.secret_file for entry in entries.values()}


def _kind(text: str) -> Kind:
    return next(kind for kind in IN_HQ if kind == text)


def _texts(value: object) -> Sequence[str]:
    return [str(each) for each in value] if isinstance(value, tuple) else []
