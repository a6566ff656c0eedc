"""The data directory: its format, and that one `casewire up` has it for itself."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from schemas.errors import UnavailableError

#: The version of all that is stored in a data directory (contract §2).
FORMAT: Final = 1


def open_data_dir(data_dir: Path) -> None:
    """Make the data directory, or check that this version of Casewire can read what is in it.

    Raises UnavailableError.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = data_dir / "format"
        if not file.exists():
            new = data_dir / f"format.{os.getpid()}"
            new.write_text(f"{FORMAT}\n", encoding="ascii")
            new.replace(file)
        stored = file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise UnavailableError(
            f"the data directory {data_dir} cannot be used ({error.strerror}); "
            "set CASEWIRE_DATA_DIR to one that can be written"
        ) from error
    if stored != str(FORMAT):
        raise UnavailableError(
            f"{data_dir} holds data of format {stored!r}, and this Casewire knows format {FORMAT}; "
            "use the Casewire that wrote it, or set CASEWIRE_DATA_DIR to another folder"
        )


@contextlib.contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the data directory; the lock goes with the process, however it ends.

    Raises UnavailableError if another process holds it.
    """
    with (data_dir / "lock").open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise UnavailableError(
                f"another casewire up (process {lock.read().strip()}) uses {data_dir}; "
                "stop it, or set CASEWIRE_DATA_DIR to another folder"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
