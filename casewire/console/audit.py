"""Who did what, and who saw which values: a line of JSON each, never a value."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from schemas.errors import UnavailableError
from schemas.times import now

FILE: Final = "console-audit.jsonl"


@dataclass(frozen=True, slots=True)
class Audit:
    """Appends to a file that only we can read. Names of people are in no log: they are here."""

    file: Path

    async def note(self, user: str, action: str, **about: str | int) -> None:
        """Return when it is written to disk. Raises UnavailableError: then nothing may be done."""
        line = {"at": now(), "user": user, "action": action, **about}
        try:
            await asyncio.to_thread(_append, self.file, orjson.dumps(line) + b"\n")
        except OSError as error:
            raise UnavailableError(self._unwritable(error)) from error

    def problem(self) -> str | None:
        """Return why nothing can be written down now; None if it can."""
        try:
            os.close(_opened(self.file))
        except OSError as error:
            return self._unwritable(error)
        return None

    def _unwritable(self, error: OSError) -> str:
        return (
            f"{self.file} cannot be written ({error.strerror}), and nothing is done that is "
            "not written down; make it writable"
        )


def _append(file: Path, line: bytes) -> None:
    handle = _opened(file)
    try:
        os.write(handle, line)
        os.fsync(handle)
    finally:
        os.close(handle)


def _opened(file: Path) -> int:
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
