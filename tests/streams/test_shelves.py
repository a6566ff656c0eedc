"""What tables hold, in memory and on disk: the same, and never ahead of their changelog."""

import itertools
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from streams.disk import StoreError, WorkerDisk
from streams.fence import VERSION, version_of
from streams.shelves import Shelves
from streams.stores import (
    TRUSTED_MS,
    VERSION_BYTES,
    Mark,
    MemoryStores,
    Stores,
    packed,
    version_in,
)
from tests.streams import endless_writer
from tests.streams.made import Made

PARTITION = 3
KEYS = [b"demo/%d" % number for number in range(5)]

#: A key, whether it is deleted, and by how much a frozen worker's version is too low (0: our own).
writes = st.lists(
    st.tuples(st.sampled_from(KEYS), st.booleans(), st.sampled_from([0, 0, 0, 1, 9])),
    max_size=12,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), writes),
        st.tuples(st.sampled_from(["crash", "move away", "follow"]), st.just([])),
    ),
    max_size=8,
)


@dataclass(frozen=True, slots=True)
class Read(Made):
    """A record as it is read from a changelog."""

    timestamp: int = 0


@dataclass
class Log:
    """A changelog of one partition, and a worker on it whose state is in `stores`."""

    make_stores: Callable[[], Stores]
    records: list[Read] = field(default_factory=list)
    versions: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.crash()

    def crash(self) -> None:
        """Begin with what the stores still have, and read the rest."""
        self.shelves = Shelves(self.make_stores())
        self.catch_up()

    def move_away(self) -> None:
        self.shelves.assign((), ())

    def catch_up(self) -> None:
        """Take the partition over: as Faust does, from the record that the mark names."""
        self.shelves.assign([PARTITION], [PARTITION])
        mark = self.shelves.mark(PARTITION)
        rest = self.records[0 if mark is None else mark.offset :]
        if mark is not None:
            assert mark.followed_by(rest[0])
        if rest:
            self.shelves.apply(PARTITION, rest)
        self.shelves.recovered()

    def follow(self) -> None:
        """As a standby does while another worker writes."""
        self.move_away()
        self.append([(KEYS[0], False, 0), (KEYS[1], True, 0)])
        self.catch_up()

    def write(self, changes: Sequence[tuple[bytes, bool, int]]) -> None:
        """Write changes by turns: own ones by batches, a frozen worker's in between."""
        for own, group in itertools.groupby(changes, key=lambda change: change[2] == 0):
            first, records = len(self.records), self.append(list(group))
            if own:
                stored = [
                    (r.key or b"", r.value and packed(version_of(r.headers), r.value))
                    for r in records
                ]
                self.shelves.wrote(PARTITION, first, stored)

    def append(self, changes: Sequence[tuple[bytes, bool, int]]) -> Sequence[Read]:
        first = len(self.records)
        for key, deleted, lower in changes:
            newest = self.versions.setdefault(key, 10)
            version = newest - lower if lower else newest + 1
            self.versions[key] = max(version, newest)
            value = None if deleted and lower == 0 else b"%d" % version
            headers = [(VERSION, b"%d" % version)]
            offset = len(self.records)
            self.records.append(Read(value, key, headers, offset=offset, timestamp=FAR_FUTURE))
        return self.records[first:]

    def held(self) -> Mapping[bytes, bytes]:
        self.shelves.assign([PARTITION], [PARTITION])
        found = dict(itertools.chain.from_iterable(self.shelves.slices(2)))
        assert found == {key: self.shelves.get(PARTITION, key) for key in found}
        return {key: value[VERSION_BYTES:] for key, value in found.items()}


FAR_FUTURE = 4_000_000_000_000


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerDisk]:
    disk = WorkerDisk(tmp_path_factory.mktemp("tables") / "worker", 1024 * 1024)
    kept = disk.stores("kept")  # so that the folder is held while other tables come and go
    yield disk
    kept.close()


def newest(records: Sequence[Read]) -> dict[bytes, bytes]:
    """Return what a table of the whole changelog holds."""
    memory = Shelves(MemoryStores())
    memory.assign([PARTITION], [PARTITION])
    if records:
        memory.apply(PARTITION, records)
    pairs = itertools.chain.from_iterable(memory.slices(100))
    return {key: value[VERSION_BYTES:] for key, value in pairs}


names = (f"table{number}" for number in itertools.count())


@settings(deadline=None, max_examples=20)
@given(steps)
def test_tables_on_disk_are_what_tables_in_memory_are(
    disk: WorkerDisk, steps: Sequence[tuple[str, Sequence[tuple[bytes, bool, int]]]]
) -> None:
    """Whatever was written by whom, and whether the worker stayed, died, or came back."""
    name = next(names)
    opened: list[Stores] = []

    def reopened() -> Stores:
        if opened:
            opened.pop().close()
        opened.append(disk.stores(name))
        return opened[-1]

    logs = [Log(MemoryStores), Log(reopened)]
    for (step, changes), log in itertools.product(steps, logs):
        if step == "write":
            log.write(changes)
        elif step == "follow":
            log.follow()
        elif step == "crash":
            log.move_away()
            log.crash()
        else:
            log.move_away()
            log.catch_up()
    assert logs[0].held() == logs[1].held()
    assert logs[0].shelves.ends.known == logs[1].shelves.ends.known
    for log in logs:
        log.move_away()
        log.crash()
        assert log.held() == newest(log.records)
    opened[-1].close()


def test_a_lower_version_behind_a_newer_one_is_read_again_until_it_is_written_over() -> None:
    """Also if it was read in recovery: else nobody would mend what the topic says."""
    log = Log(MemoryStores)
    log.write([(KEYS[0], False, 0), (KEYS[1], False, 0)])
    log.append([(KEYS[0], False, 5)])
    log.move_away()
    log.shelves.assign([PARTITION], ())
    log.shelves.apply(PARTITION, log.records)
    assert log.shelves.mark(PARTITION) is None
    log.catch_up()
    assert [(gap.start, gap.stop) for gap in log.shelves.ends.gaps] == [(2, 3)]
    log.write([(KEYS[2], False, 0)])
    assert log.shelves.mark(PARTITION) is None
    log.shelves.ends.closed(log.shelves.ends.gaps[0])
    log.write([(KEYS[2], False, 0)])
    mark = log.shelves.mark(PARTITION)
    assert mark is not None
    assert mark.offset == 4


def test_a_mark_is_followed_by_its_own_record_only() -> None:
    record = Read(b"value", b"key", offset=7, timestamp=FAR_FUTURE)
    mark = Mark.of(record)
    assert mark.followed_by(replace(record, timestamp=5))
    assert not mark.followed_by(None)  # the log ends before it
    assert not mark.followed_by(replace(record, offset=8))  # it was compacted away
    assert not mark.followed_by(replace(record, value=b"other"))  # the topic was made anew
    assert not mark.followed_by(replace(record, value=None))
    old = Mark.at(7, b"key", b"value")
    assert old.followed_by(record)
    assert not replace(old, time_ms=old.time_ms - TRUSTED_MS).followed_by(record)


def test_two_workers_of_one_machine_have_folders_of_their_own(tmp_path: Path) -> None:
    first = WorkerDisk(tmp_path / "streams", 1024)
    second = WorkerDisk(tmp_path / "streams", 1024)
    assert (first.folder.name, second.folder.name) == ("streams-1", "streams-2")
    first.stores("table").close()
    assert WorkerDisk(tmp_path / "streams", 1024).folder.name == "streams-1"


def test_a_damaged_table_is_made_anew(tmp_path: Path) -> None:
    disk = WorkerDisk(tmp_path / "streams", 1024 * 1024)
    stores = disk.stores("table")
    stores.open(0).write({b"k": packed(1, b"v")}, Mark.at(0, b"k", b"v"))
    stores.close()
    for manifest in (disk.folder / "table").glob("MANIFEST*"):
        manifest.write_bytes(b"?" * 1000)
    again = WorkerDisk(tmp_path / "streams", 1024 * 1024).stores("table")
    assert again.open(0).mark is None
    again.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return the function that starts a process which writes to a store as fast as it can."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", endless_writer.__name__, str(tmp_path), *arguments]
        started.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def stored_in(folder: Path) -> tuple[Mark | None, Mapping[bytes, bytes]]:
    stores = WorkerDisk(folder / "worker", 1024 * 1024).stores("table")
    store = stores.open(0)
    found = dict(itertools.chain.from_iterable(store.slices(1000)))
    stores.close()
    return store.mark, found


def test_after_kill_9_a_table_is_what_its_changelog_says_up_to_its_mark(
    tmp_path: Path, writer: Callable[..., subprocess.Popen[str]]
) -> None:
    before = -1
    for batches in (1, 40, 300):
        process = writer()
        assert process.stdout is not None
        for _ in range(batches):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        mark, found = stored_in(tmp_path)
        assert mark is not None
        assert mark.offset > before
        assert found == endless_writer.held_after(mark.offset)
        assert {version_in(value) for value in found.values()} <= set(range(mark.offset + 1))
        key, value = endless_writer.record(mark.offset)
        assert mark.checksum == zlib.crc32(value or b"", zlib.crc32(key))
        before = mark.offset


def test_a_full_disk_ends_in_one_sentence_and_with_room_it_goes_on_from_there(
    tmp_path: Path, writer: Callable[..., subprocess.Popen[str]]
) -> None:
    """The limit on a file's size stands for the disk's: what is written behind it fails."""
    process = writer("--file-bytes", "200000")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.startswith(f"the tables in {tmp_path}/worker-1/table cannot be used (File too")
    assert error.count("\n") == 1
    mark, found = stored_in(tmp_path)
    assert mark is not None
    assert found == endless_writer.held_after(mark.offset)
    process = writer()
    assert process.stdout is not None
    assert int(process.stdout.readline()) > mark.offset


def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "streams-1").write_text("not a folder")
    with pytest.raises(StoreError, match="make room, or mend the disk"):
        WorkerDisk(tmp_path / "streams", 1024)
