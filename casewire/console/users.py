"""Who may log in: a file with a line `NAME:scrypt:…` for each user."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from casewire.auth_file import locked, write_private
from ingress.secrets_store import Scrypt, parse_secret, scrypt_text
from schemas.errors import ConfigError

SHORTEST_PASSWORD: Final = 12

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_HEAD: Final = "# Users of the console, written by casewire console password.\n"


def read_users(file: Path) -> Mapping[str, str]:
    """Return what is stored of each user's password, by name. Raises ConfigError."""
    remedy = f"make one by casewire console password NAME --file {file}"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(
            f"[console] users_file: {file} cannot be read ({error.strerror}); {remedy}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"[console] users_file: {file} is not UTF-8; {remedy}") from error
    written = (line.strip() for line in lines)
    users = dict(line.split(":", 1) for line in written if ":" in line and line[:1] != "#")
    for name, stored in users.items():
        _checked(file, name, stored)
    if not users:
        raise ConfigError(f"[console] users_file: {file} names nobody; {remedy}")
    return users


def password_of(stored: str) -> Scrypt:
    """Return what a password can be proved by. Raises ValueError."""
    secret = parse_secret(stored)
    if not isinstance(secret, Scrypt):
        raise ValueError("is no scrypt: secret")  # noqa: TRY004 - what callers expect
    return secret


def set_password(file: Path, name: str, password: str) -> None:
    """Add a user, or change the password of one. Raises ConfigError or UnavailableError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no user name; take letters, digits and . _ @ + -, such as an address"
        )
    if len(password) < SHORTEST_PASSWORD:
        raise ConfigError(f"the password is too short; take {SHORTEST_PASSWORD} characters or more")
    _change(file, name, scrypt_text(password))


def remove_user(file: Path, name: str) -> None:
    """Remove a user; sessions of theirs end. Raises ConfigError or UnavailableError."""
    if name not in read_users(file):
        raise ConfigError(f"there is no user {name!r} in {file}")
    _change(file, name, None)


def _change(file: Path, name: str, stored: str | None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.parent):
        users = dict(read_users(file)) if file.exists() else {}
        users.pop(name, None)
        if stored is not None:
            users[name] = stored
        lines = (f"{each}:{text}\n" for each, text in users.items())
        write_private(file, _HEAD + "".join(lines))


def _checked(file: Path, name: str, stored: str) -> None:
    wrong = "" if _NAME.fullmatch(name) else "is no user name"
    try:
        password_of(stored)
    except ValueError:
        wrong = wrong or "holds no password as casewire console password writes it"
    if wrong:
        raise ConfigError(f"[console] users_file: {file}: the line of {name!r} {wrong}")
