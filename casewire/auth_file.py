"""credentials.toml beside casewire.toml, and the secret files: written whole or not at all."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
import orjson

from casewire.config import CREDENTIALS_FILE, read_toml
from ingress.settings import CredentialSettings
from schemas.errors import UnavailableError

SECRETS: Final = "secrets"

_HEAD: Final = "# Written by casewire auth, which forgets what else is written here.\n"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change the credentials of a folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read_entries(folder: Path) -> dict[str, CredentialSettings]:
    """Return what credentials.toml says, nothing if there is none. It must have been checked."""
    file = folder / CREDENTIALS_FILE
    raw = read_toml(file) if file.exists() else {}
    return msgspec.convert(raw.get("credentials", {}), dict[str, CredentialSettings])


def write_entries(folder: Path, entries: Mapping[str, CredentialSettings]) -> None:
    """Replace credentials.toml. Raises UnavailableError."""
    tables = "".join(_table(name, entry) for name, entry in entries.items())
    write_private(folder / CREDENTIALS_FILE, _HEAD + tables)


def write_private(file: Path, text: str) -> None:
    """Write a file that only we can read; who reads it sees the old text or the new one.

    Raises UnavailableError.
    """
    new = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(file)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UnavailableError(
            f"{file} cannot be written ({error.strerror}); make its folder writable"
        ) from error


def _table(name: str, entry: CredentialSettings) -> str:
    lines = [f"\n[credentials.{_quoted(name)}]"]
    for field in msgspec.structs.fields(CredentialSettings):
        value = getattr(entry, field.name)
        if value != field.default:
            written = _quoted(value) if isinstance(value, str) else _list(value)
            lines.append(f"{field.name} = {written}")
    return "\n".join(lines) + "\n"


def _list(texts: list[str]) -> str:
    return f"[{', '.join(_quoted(text) for text in texts)}]"


def _quoted(text: str) -> str:
    """Return a TOML string: JSON's, but that TOML wants DEL escaped too."""
    return orjson.dumps(text).decode().replace("\x7f", "\\u007f")
