"""Which records of a partition are about which case, and when they were captured: on local disk.

One SQLite file a partition. It holds nothing that the topics do not: one that is missing, damaged
or of another format is made anew from them. Several processes of one machine may have it open.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

FORMAT: Final = 1
_LOCK_SECONDS: Final = 10.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
    key INTEGER, time INTEGER, topic INTEGER, offset INTEGER,
    PRIMARY KEY (key, time, topic, offset)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (topic INTEGER PRIMARY KEY, next INTEGER NOT NULL);
"""


class Entry(NamedTuple):
    """A record about a case. `time` (of its capture) is in microseconds since 1970, 0 if unknown.

    `topic` is a number that whoever keeps the index gives to a topic.
    """

    time: int
    topic: int
    offset: int


class Index:
    """The index of one partition. Its methods block; an instance is for one thread at a time."""

    def __init__(self, file: Path) -> None:
        """Open it; an empty one if there is none that can be used."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        try:
            self._connection = _opened(file)
        except sqlite3.DatabaseError:
            discard(file)
            self._connection = _opened(file)

    def positions(self) -> Mapping[int, int]:
        """Return up to which offset (exclusive) each topic is indexed."""
        with self._connection:
            return dict(self._connection.execute("SELECT topic, next FROM positions"))

    def add(self, entries: Iterable[tuple[bytes, Entry]], positions: Mapping[int, int]) -> None:
        """Add records by key, and note up to where the topics are indexed now; both or neither."""
        rows = [(digest(key), *entry) for key, entry in entries]
        with self._connection:
            self._connection.executemany("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?)", rows)
            self._connection.executemany(
                "INSERT INTO positions VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET next = max(next, excluded.next)",
                positions.items(),
            )

    def forget(self, starts: Mapping[int, int]) -> None:
        """Remove what lies before the offset at which each topic begins now."""
        with self._connection:
            self._connection.executemany(
                "DELETE FROM events WHERE topic = ? AND offset < ?", starts.items()
            )

    def close(self) -> None:
        self._connection.close()


def entries_of(file: Path, key: bytes) -> Sequence[Entry]:
    """Return what the index has of a key, in order of capture, and hardly ever of another's too.

    Raises sqlite3.Error.
    """
    with contextlib.closing(sqlite3.connect(file, timeout=_LOCK_SECONDS)) as connection:
        found = connection.execute(
            "SELECT time, topic, offset FROM events WHERE key = ? ORDER BY time", (digest(key),)
        )
        return [Entry(*row) for row in found]


def discard(file: Path) -> None:
    """Delete an index."""
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)


def digest(key: bytes) -> int:
    """Return 64 bits that stand for a key: a tenth of the bytes, and readers see the key itself."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big", signed=True)


def _opened(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=_LOCK_SECONDS, check_same_thread=False)
    try:
        _require_format(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        # A power failure may take the last transactions, whole: the topics have them.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def _require_format(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, FORMAT):
        raise sqlite3.DatabaseError(f"it is of format {version}")
