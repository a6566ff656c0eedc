"""The spool on disk: durable when it says so, drained once, shared, bounded, and never silent."""

import asyncio
import contextlib
import resource
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from ingress.records import Event
from ingress.spool import Spool
from ingress.spool_drain import CHUNK_EVENTS, Drain
from ingress.spool_folder import QUARANTINE, SEGMENT_BYTES
from ingress.spool_format import HEADER
from ingress.spool_metrics import SpoolMetrics
from schemas.errors import UnavailableError
from schemas.topics import MEBIBYTE
from tests.ingress.rig import until

pytestmark = pytest.mark.anyio


class Shelf:
    """Takes events as Kafka would, `room` of them; refuses those in `refused`."""

    def __init__(self, room: int = 1_000_000, refused: Sequence[str] = ()) -> None:
        self.taken: list[Event] = []
        self.room = room
        self.refused = set(refused)

    def ready(self) -> str | None:
        return None if self.room else "no room"

    async def deliver(self, events: Sequence[Event]) -> Sequence[Event]:
        wanted = [event for event in events if event.id not in self.refused]
        taken, lost = wanted[: self.room], wanted[self.room :]
        self.taken += taken
        self.room -= len(taken)
        if lost:
            raise UnavailableError("no room")
        return [event for event in events if event.id in self.refused]


class Rig:
    """A spool in a directory, with its metrics."""

    def __init__(self, directory: Path, max_bytes: int = 256 * MEBIBYTE) -> None:
        self.directory = directory
        self.registry = CollectorRegistry()
        self.metrics = SpoolMetrics(self.registry)
        self.spool = Spool(directory, max_bytes, self.metrics)

    def value(self, name: str) -> float:
        return self.registry.get_sample_value(f"casewire_spool_{name}") or 0

    async def fill(self, events: Sequence[Event]) -> None:
        await asyncio.gather(*(self.spool.append(event) for event in events))

    @contextlib.asynccontextmanager
    async def draining(self, shelf: Shelf) -> AsyncIterator[None]:
        task = asyncio.create_task(Drain(self.spool, shelf, self.metrics).run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def drain(self, shelf: Shelf) -> None:
        """Drain everything, and close."""
        await self.spool.adopt()
        async with self.draining(shelf):
            await until(lambda: not any(folder.segments for folder in self.spool.folders))
        await self.spool.close()


def events_of(count: int, body: bytes = b"<form/>") -> list[Event]:
    return [Event(f"id-{i:06d}", [("ce_id", b"%d" % i)], body) for i in range(count)]


def segments(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*/*.segment") if QUARANTINE not in path.parts)


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def glob(directory: Path, pattern: str) -> Path:
    """Return the one file of that pattern."""
    (file,) = directory.glob(pattern)
    return file


def crashed(running: Path, copy: Path) -> Path:
    """Return the disk as a power cut would leave it now."""
    shutil.copytree(running, copy)
    return copy


@contextlib.contextmanager
def disk_full(limit: int) -> Iterator[None]:
    """Let no file of this process grow above the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_what_was_appended_is_on_disk_and_is_drained_once_and_in_order(
    tmp_path: Path,
) -> None:
    first = Rig(tmp_path / "spool")
    sent = events_of(2 * CHUNK_EVENTS + 7)
    await first.fill(sent)
    assert (first.value("events"), first.value("stored_total")) == (len(sent), len(sent))
    assert first.value("bytes") == sum(path.stat().st_size for path in segments(first.directory))
    later = Rig(crashed(first.directory, tmp_path / "crashed"))
    shelf = Shelf()
    await later.drain(shelf)
    assert shelf.taken == sent
    assert later.value("drained_total") == len(sent)
    assert (later.value("events"), later.value("bytes")) == (0, 0)
    assert names(later.directory) == [QUARANTINE]
    await first.spool.close()


async def test_one_flush_is_for_all_that_wait(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with disk_full(0), capture_logs() as logs, pytest.raises(UnavailableError):
        await asyncio.gather(*(rig.spool.append(event) for event in events_of(500)))
    assert [log["count"] for log in logs] == [500]
    assert not segments(tmp_path)
    await rig.spool.close()


async def test_large_events_fill_segments_of_bounded_size(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    sent = [Event(f"large-{i}", [], bytes([i]) * 9 * MEBIBYTE) for i in range(6)]
    for event in sent:
        await rig.spool.append(event)
    assert len(segments(tmp_path)) == 3
    assert all(path.stat().st_size < SEGMENT_BYTES + 10 * MEBIBYTE for path in segments(tmp_path))
    shelf = Shelf()
    await rig.drain(shelf)
    assert shelf.taken == sent


async def test_a_restart_goes_on_where_draining_stopped(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    sent = events_of(5 * CHUNK_EVENTS)
    await rig.fill(sent)
    shelf = Shelf(room=2 * CHUNK_EVENTS + 10)
    async with rig.draining(shelf):
        await until(lambda: shelf.room == 0)
    await rig.spool.close()
    later = Rig(tmp_path)
    rest = Shelf()
    await later.drain(rest)
    assert rest.taken == sent[2 * CHUNK_EVENTS :]


async def test_progress_that_is_damaged_means_twice_and_never_not_at_all(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    sent = events_of(2 * CHUNK_EVENTS)
    await rig.fill(sent)
    shelf = Shelf(room=CHUNK_EVENTS)
    async with rig.draining(shelf):
        await until(lambda: shelf.room == 0)
    await rig.spool.close()
    progress = glob(tmp_path, "*/progress")
    progress.write_bytes(progress.read_bytes().replace(b".segment ", b".segment 9"))
    rest = Shelf()
    await Rig(tmp_path).drain(rest)
    assert rest.taken == sent


async def test_a_living_process_keeps_its_spool_and_a_dead_one_s_is_adopted(tmp_path: Path) -> None:
    living, dead = Rig(tmp_path), Rig(tmp_path)
    await living.fill(events_of(3))
    await dead.fill(events_of(5, b"of the dead"))
    await dead.spool.close()
    adopter = Rig(tmp_path)
    shelf = Shelf()
    await adopter.drain(shelf)
    assert shelf.taken == events_of(5, b"of the dead")
    assert len(segments(tmp_path)) == 1
    kept = Shelf()
    await living.drain(kept)
    assert kept.taken == events_of(3)
    assert names(tmp_path) == [QUARANTINE]


async def test_events_spooled_while_it_drains_are_drained_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shelf = Shelf()
    sent = events_of(3000)
    async with rig.draining(shelf):
        for start in range(0, len(sent), 100):
            await rig.fill(sent[start : start + 100])
        await until(lambda: len(shelf.taken) == len(sent))
        await until(lambda: not segments(tmp_path))
    assert shelf.taken == sent
    await rig.spool.close()


async def test_a_full_spool_says_so_before_and_when_it_is(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_bytes=100_000)
    await rig.fill(events_of(8, bytes(10_000)))
    assert rig.spool.unable() is None
    await rig.fill(events_of(1, bytes(10_000)))
    assert rig.spool.unable() == "the spool is nearly full"
    with pytest.raises(UnavailableError, match="spool_bytes"):
        await rig.fill(events_of(1, bytes(10_000)))
    shelf = Shelf()
    async with rig.draining(shelf):
        await until(lambda: not segments(tmp_path))
    await rig.fill(events_of(8, bytes(10_000)))
    await rig.spool.close()
    assert len(shelf.taken) == 9


async def test_a_full_disk_fails_its_own_requests_and_no_others(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    before = events_of(10, bytes(1000))
    await rig.fill(before)
    with disk_full(15_000), capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(UnavailableError, match="see to its disk"):
                await rig.spool.append(Event("too much", [], bytes(20_000)))
        await rig.spool.append(Event("small", [], b"fits"))
    assert [log["event"] for log in logs] == 3 * ["events cannot be spooled"]
    assert rig.value("failures_total") == 3
    after = events_of(10, b"there is space again")
    await rig.fill(after)
    assert rig.spool.unable() is None
    shelf = Shelf()
    await rig.drain(shelf)
    assert shelf.taken == [*before, Event("small", [], b"fits"), *after]
    assert rig.value("damaged_total") == 0


async def test_a_spool_cut_anywhere_on_disk_is_drained_up_to_the_cut(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "spool")
    sent = events_of(3)
    for event in sent:
        await rig.spool.append(event)
    whole = segments(rig.directory)[0].read_bytes()
    await rig.spool.close()
    header = len(HEADER)
    size = (len(whole) - header) // 3
    cuts = (0, 5, header, header + size, len(whole) - size // 2, len(whole) - 1)
    for number, cut in enumerate(cuts):
        copy = crashed(rig.directory, tmp_path / f"cut-{number}")
        segments(copy)[0].write_bytes(whole[:cut])
        shelf = Shelf()
        later = Rig(copy)
        await later.drain(shelf)
        assert shelf.taken == sent[: max(0, cut - header) // size]
        assert later.value("torn_total") == (cut not in (0, header, header + size))
        assert not segments(copy)


async def test_damage_is_told_kept_and_passed_over(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    sent = events_of(CHUNK_EVENTS + 5)
    await rig.fill(sent)
    await rig.spool.close()
    segment = segments(tmp_path)[0]
    damaged = bytearray(segment.read_bytes())
    damaged[damaged.index(b"id-000003")] ^= 1
    segment.write_bytes(damaged)
    later = Rig(tmp_path)
    shelf = Shelf()
    with capture_logs() as logs:
        await later.drain(shelf)
    assert shelf.taken == [*sent[:3], *sent[4:]]
    assert later.value("damaged_total") == 1
    assert [log["event"] for log in logs if log["log_level"] == "error"] == [
        "EVENTS ARE LOST: the spool is damaged; the segment goes to quarantine"
    ]
    kept = glob(tmp_path, f"{QUARANTINE}/*")
    assert kept.read_bytes() == bytes(damaged)
    assert kept.name.endswith(segment.name)


async def test_what_kafka_refuses_stays_and_holds_up_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    sent = events_of(10)
    await rig.fill(sent)
    shelf = Shelf(refused=["id-000004"])
    async with rig.draining(shelf):
        await until(lambda: len(shelf.taken) == 9)
        await until(lambda: rig.value("events") == 1)
    assert rig.value("refused_total") == 1
    await rig.spool.close()
    rest = Shelf()
    await Rig(tmp_path).drain(rest)
    assert rest.taken == [sent[4]]
