"""A folder of the spool on disk: locked by one process, with segments and how far they are drained.

    <data_dir>/spool/<instance>/lock                        held (flock) while its process lives
    <data_dir>/spool/<instance>/<sequence>-<nonce>.segment  see ingress.spool_format
    <data_dir>/spool/<instance>/progress                    the segment being drained, and how far
    <data_dir>/spool/quarantine/<instance>-<segment>        segments in which something was damaged

Everything here blocks, and raises OSError: it is called in threads.
"""

import contextlib
import fcntl
import itertools
import os
import secrets
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from ingress.spool_format import (
    HEADER,
    NONCE_BYTES,
    Damaged,
    Found,
    Stored,
    frame,
    is_newer,
    parse_segment_name,
    scan,
    segment_name,
)
from schemas.errors import UnavailableError

#: A segment takes nothing more above this size. It is read whole, so memory bounds it.
SEGMENT_BYTES: Final = 16 * 1024 * 1024

QUARANTINE: Final = "quarantine"
_LOCK: Final = "lock"
_PROGRESS: Final = "progress"

#: Flushes a file's data and its size; macOS has only the slower one.
_sync = getattr(os, "fdatasync", os.fsync)


@dataclass(slots=True, eq=False)
class Segment:
    """`size` bytes are durable, of which `offset` are drained; `since` is the next event's time.

    The writer's thread sets `size`, `written` and `sealed`, the drain the others.
    """

    path: Path
    nonce: bytes
    size: int = 0
    written: int = 0
    sealed: bool = False
    offset: int = 0
    drained: int = 0
    since: float = 0.0
    damaged: bool = False

    def read(self) -> tuple[int, Iterator[Found]]:
        """Return the offset at which reading begins, and what is there; offsets count from it."""
        offset, end = self.offset, self.size
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read(end - offset)
        found = scan(data, self.nonce, header=offset == 0)
        missing = [Damaged(len(data), end - offset)] if len(data) < end - offset else []
        return offset, itertools.chain(found, missing)


class Folder:
    """The folder of one instance, which this process has locked."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.segments: list[Segment] = []
        self._lock = lock

    @classmethod
    def create(cls, spool: Path) -> Self:
        """Make a new folder in the spool's directory."""
        (spool / QUARANTINE).mkdir(parents=True, exist_ok=True)
        while True:
            path = spool / f"{os.getpid()}-{secrets.token_hex(4)}"
            path.mkdir()
            sync_directory(spool)
            lock = _locked(path)
            if lock is not None:
                return cls(path, lock)

    @classmethod
    def adopt(cls, path: Path) -> Self | None:
        """Return the folder of a process that died; None if its process lives or it is gone.

        Raises UnavailableError if a newer Casewire wrote it.
        """
        lock = _locked(path)
        if lock is None:
            return None
        folder = cls(path, lock)
        try:
            folder._load()
        except BaseException:
            folder.release()
            raise
        return folder

    def save_progress(self, segment: Segment) -> None:
        """Remember durably how far a segment is drained."""
        text = f"{segment.path.name} {segment.offset}"
        new = self.path / f"{_PROGRESS}.new"
        with new.open("w", encoding="ascii") as file:
            file.write(f"{text} {zlib.crc32(text.encode())}\n")
            file.flush()
            _sync(file.fileno())
        new.replace(self.path / _PROGRESS)

    def remove(self, segment: Segment) -> None:
        """Delete a segment that is drained; keep one with damage, in quarantine."""
        if segment.damaged:
            quarantine = self.path.parent / QUARANTINE
            segment.path.rename(quarantine / f"{self.path.name}-{segment.path.name}")
            sync_directory(quarantine)
        else:
            segment.path.unlink(missing_ok=True)
        sync_directory(self.path)
        self.segments.remove(segment)

    def release(self) -> None:
        """Unlock the folder; delete it first if no segment is left in it."""
        if not any(parse_segment_name(path.name) for path in self.path.iterdir()):
            for name in (_PROGRESS, f"{_PROGRESS}.new", _LOCK):
                (self.path / name).unlink(missing_ok=True)
            # Another process may have put its lock there just now: it will find nothing, too.
            with contextlib.suppress(OSError):
                self.path.rmdir()
        os.close(self._lock)

    def _load(self) -> None:
        drained = self._progress()
        for path in sorted(self.path.glob("*.segment")):
            named = parse_segment_name(path.name)
            if named is None:
                continue
            segment = Segment(path, named[1], path.stat().st_size, sealed=True)
            with path.open("rb") as file:
                if is_newer(file.read(len(HEADER))):
                    raise UnavailableError(
                        f"{self.path} was spooled by a newer Casewire: start that one, and let it "
                        "bring its events to Kafka"
                    )
            if drained is not None and drained[0] == path.name and drained[1] <= segment.size:
                segment.offset = drained[1]
            _, found = segment.read()
            for item in found:
                if isinstance(item, Stored):
                    segment.since = segment.since or item.milliseconds / 1000
                    segment.written += 1
            self.segments.append(segment)

    def _progress(self) -> tuple[str, int] | None:
        """Return segment and offset; None if nothing is known, so that all is drained again."""
        try:
            name, offset, checksum = (self.path / _PROGRESS).read_bytes().split()
        except (FileNotFoundError, ValueError):
            return None
        if zlib.crc32(name + b" " + offset) != int(checksum):
            return None
        return name.decode(), int(offset)


class Writer:
    """Appends to a folder of its own, a group of payloads with one flush.

    The folder is made when it is needed, so that a full disk does not keep a process from starting.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self.folder: Folder | None = None
        self._segment: Segment | None = None
        self._file = -1
        self._sequence = 0

    def write(self, payloads: Sequence[bytes]) -> None:
        """Return when the payloads are on disk.

        If they are not, what was durable before stays so, and the next write begins a segment.
        """
        if self.folder is None:
            self.folder = Folder.create(self._spool)
        if self._segment is None or self._segment.size >= SEGMENT_BYTES:
            self.seal()
            self._segment = self._begin(self.folder)
        segment = self._segment
        data = frame(payloads, segment.nonce)
        try:
            if segment.size == 0:
                data = HEADER + data
                sync_directory(self.folder.path)
            _write_all(self._file, data)
            _sync(self._file)
        except OSError:
            self._give_up(segment)
            raise
        if segment.size == 0:
            segment.since = time.time()
            self.folder.segments.append(segment)
        segment.size += len(data)
        segment.written += len(payloads)

    def seal(self) -> None:
        """Write nothing more to the present segment."""
        if self._segment is not None:
            os.close(self._file)
            self._segment.sealed = True
            self._segment = None

    def _begin(self, folder: Folder) -> Segment:
        self._sequence += 1
        nonce = secrets.token_bytes(NONCE_BYTES)
        path = folder.path / segment_name(self._sequence, nonce)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        return Segment(path, nonce)

    def _give_up(self, segment: Segment) -> None:
        """After a failed flush nobody knows what is on disk: what was durable is, no more."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, segment.size)
        with contextlib.suppress(OSError):
            self.seal()
        if segment.size == 0:
            with contextlib.suppress(OSError):
                segment.path.unlink()


def folders(spool: Path) -> Sequence[Path]:
    """Return the folders of all processes, living or dead."""
    if not spool.exists():
        return []
    return sorted(path for path in spool.iterdir() if path.is_dir() and path.name != QUARANTINE)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _locked(path: Path) -> int | None:
    """Return the folder's lock, None if another process has it or has deleted it."""
    file = path / _LOCK
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), file.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
