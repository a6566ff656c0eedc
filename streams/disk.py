"""States on disk, for more of them than fit in memory: RocksDB.

What a store promises here: the changes of a batch and the mark of how far it follows its changelog
are one write, so after a `kill -9` or a power cut it is where it was at some mark. It is never
synced: what a power cut takes is read again from the changelog.

A table is one database in a folder of its own, a partition is a column family in it: 40 databases
took two seconds to open, five take 0.2. All tables of a worker share one cache and one budget for
what is not written out yet.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import structlog
from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
)

from schemas.errors import WorkerError
from schemas.topics import MEBIBYTE
from streams.stores import Mark, Size, Store, Stored

#: What is written and not yet in files, of all tables together.
WRITE_BUFFER_BYTES: Final = 64 * MEBIBYTE
#: Of one partition: a quarter, so that a busy one leaves room.
PARTITION_BUFFER_BYTES: Final = 16 * MEBIBYTE
#: The index of a file stays in memory, an entry a block: 4 MB for a million states of 1 KB.
BLOCK_BYTES: Final = 16 * 1024
BLOOM_BITS: Final = 10
OPEN_FILES: Final = 200
#: No state has this key: theirs begin with a project space.
MARK_KEY: Final = b"\0mark"
DEFAULT: Final = "default"
#: Of what the databases of tables hold, and how. It is in their column family `default`, and grows
#: with the form of a state too: nobody who reads a value from disk is told which form that has.
FORMAT: Final = b"1"
FORMAT_KEY: Final = b"format"

_log = structlog.get_logger(__name__)


class StoreError(WorkerError):
    """States cannot be written to disk, or not be read from it."""


class WorkerDisk:
    """What the tables of one worker share: a folder that is this process's alone, and memory."""

    def __init__(self, folder: Path, cache_bytes: int) -> None:
        """Take the first folder `<folder>-<number>` that no other worker has.

        A worker that is started anew finds its own again. Raises StoreError.
        """
        number, lock = 0, None
        with _store_errors(folder):
            while lock is None:
                number += 1
                self.folder = folder.with_name(f"{folder.name}-{number}")
                lock = _locked(self.folder)
        self._cache = Cache(cache_bytes)
        self._buffers = WriteBufferManager(WRITE_BUFFER_BYTES, allow_stall=False)
        self._lock = lock
        self._tables: set[str] = set()

    def stores(self, name: str) -> "RocksStores":
        """Return the stores of a table. When the last table is closed, the folder is free."""
        self._tables.add(name)
        return RocksStores(self, name)

    def closed(self, name: str) -> None:
        self._tables.discard(name)
        if not self._tables:
            os.close(self._lock)

    def options(self) -> Options:
        """Return how a table's database, and each partition in it, is opened."""
        blocks = BlockBasedOptions()
        blocks.set_block_cache(self._cache)
        blocks.set_block_size(BLOCK_BYTES)
        blocks.set_bloom_filter(BLOOM_BITS, block_based=False)
        options = Options(raw_mode=True)
        options.create_if_missing(create_if_missing=True)
        options.set_write_buffer_manager(self._buffers)
        options.set_write_buffer_size(PARTITION_BUFFER_BYTES)
        options.set_max_total_wal_size(WRITE_BUFFER_BYTES)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_block_based_table_factory(blocks)
        options.set_max_open_files(OPEN_FILES)
        options.set_keep_log_file_num(2)
        return options


def _locked(folder: Path) -> int | None:
    """Return a lock on a folder, which goes with the process; None if another one has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


class RocksStore:
    """One partition; see `Store`."""

    def __init__(self, database: Rdict, name: str) -> None:
        self._database = database
        self._family = database.get_column_family(name)
        self._handle = database.get_column_family_handle(name)
        self.get = self._family.get
        mark = self.get(MARK_KEY)
        self.mark = None if mark is None else Mark.from_bytes(mark)

    def write(self, changes: Mapping[bytes, bytes | None], mark: Mark | None) -> None:
        batch = WriteBatch(raw_mode=True)
        batch.set_default_column_family(self._handle)
        for key, value in changes.items():
            if value is not None:
                batch.put(key, value)
            else:
                batch.delete(key)
        if mark is not None:
            batch.put(MARK_KEY, mark.to_bytes())
        with _store_errors(Path(self._database.path())):
            self._database.write(batch)
        self.mark = mark or self.mark

    def slices(self, size: int) -> Iterator[Sequence[Stored]]:
        start = MARK_KEY + b"\0"
        while some := list(islice(self._items(start), size)):
            yield some
            start = some[-1][0] + b"\0"

    def size(self) -> Size:
        keys = self._family.property_int_value("rocksdb.estimate-num-keys") or 0
        files = self._family.property_int_value("rocksdb.total-sst-files-size") or 0
        return Size(max(0, keys - 1), files)  # one key is the mark

    def _items(self, start: bytes) -> Iterator[Stored]:
        items: Any = self._family.items(from_key=start)
        yield from items


class RocksStores:
    """One table; see `Stores`. The database is opened when its first partition is."""

    def __init__(self, disk: WorkerDisk, name: str) -> None:
        self._disk = disk
        self._name = name
        self._folder = disk.folder / name
        self._partitions: set[str] = set()
        self._opened: Rdict | None = None

    def open(self, partition: int) -> Store:
        name = str(partition)
        database = self._database()
        with _store_errors(self._folder):
            if name not in self._partitions:
                database.create_column_family(name, self._disk.options())
                self._partitions.add(name)
            return RocksStore(database, name)

    def empty(self, partition: int) -> Store:
        with _store_errors(self._folder):
            self._database().drop_column_family(str(partition))
        self._partitions.discard(str(partition))
        return self.open(partition)

    def close(self) -> None:
        if self._opened is not None:
            with contextlib.suppress(Exception):  # on a full disk: then a write has told it before
                self._opened.close()
            self._opened = None
        self._disk.closed(self._name)

    def _database(self) -> Rdict:
        if self._opened is None:
            with _store_errors(self._folder):
                try:
                    self._opened = self._open()
                except Exception as error:
                    if "Corruption" not in str(error):
                        raise
                    _log.warning(
                        "a table's store is damaged and made anew", folder=str(self._folder)
                    )
                    shutil.rmtree(self._folder)
                    self._opened = self._open()
                if self._opened.get(FORMAT_KEY) != FORMAT:
                    self._opened = self._made_anew(self._opened)
        return self._opened

    def _made_anew(self, opened: Rdict) -> Rdict:
        """Return an empty database in place of one of another format: its changelog has it all."""
        if self._partitions:
            _log.warning(
                "a table's store is of another format and made anew", folder=str(self._folder)
            )
            opened.close()
            shutil.rmtree(self._folder)
            opened = self._open()
        opened[FORMAT_KEY] = FORMAT
        return opened

    def _open(self) -> Rdict:
        path = str(self._folder)
        names = Rdict.list_cf(path) if (self._folder / "CURRENT").exists() else [DEFAULT]
        # An existing column family of which nothing is said here is opened as it was when it was
        # made, and with a cache of its own.
        families = {name: self._disk.options() for name in names}
        database = Rdict(path, self._disk.options(), column_families=families)
        self._partitions = set(names) - {DEFAULT}
        return database


@contextlib.contextmanager
def _store_errors(folder: Path) -> Iterator[None]:
    """Translate what RocksDB raises, which is told by its text alone."""
    try:
        yield
    except Exception as error:
        reason = str(error).rsplit(": ", 1)[-1]  # before it stands what failed, at which file
        raise StoreError(
            f"the tables in {folder} cannot be used ({reason}); make room, or mend the disk: "
            "nothing is lost, and the worker goes on when it is started again"
        ) from error
