"""What can be wrong with the machine: files, disk, limits, systemd's units."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiokafka import TopicPartition

from casewire.config import Config
from casewire.data_dir import open_data_dir
from casewire.health import running
from casewire.ingress_command import files_wanted
from casewire.reading import consuming
from casewire.topics import partition_numbers
from schemas.topics import DAY_MS

#: Below it SQLite and the broker will soon stop.
LEAST_FREE_BYTES: Final = 1024**3
#: Time enough to order a larger disk.
LEAST_DAYS: Final = 14
#: How long the topics keep events (contract §4): what lies longer makes room.
_RETENTION_DAYS: Final = 30
_DAY_SECONDS: Final = DAY_MS // 1000

_UNIT_FOLDER: Final = Path("/etc/systemd/system")
#: What `casewire up` may need to stop: sinks, streams and ingress 30 s each, then the broker 60.
_UP_STOP_SECONDS: Final = 150
_VOLATILE: Final = frozenset({"tmpfs", "ramfs"})
_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph"})
_MOUNTS: Final = Path("/proc/self/mountinfo")


async def secrets(config: Config) -> Sequence[str]:
    """Look whether files with secrets can be read by everybody on this machine.

    Where they cannot be changed, as in a container, who gets to them is settled outside.
    """
    files = [*config.access_files, config.state_token_file]
    return [
        f"{file} can be read by everybody on this machine; run chmod o-rwx {file}"
        for file in dict.fromkeys(files)
        if file != config.file
        and file.exists()
        and file.stat().st_mode & 0o004
        and not os.statvfs(file).f_flag & os.ST_RDONLY
    ]


async def data_directory(config: Config) -> Sequence[str]:
    folder = config.data_dir
    open_data_dir(folder)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"casewire")
    except OSError as error:
        return [f"{folder} cannot be written ({error.strerror}); correct its permissions"]
    mounts = _MOUNTS.read_text(encoding="utf-8") if _MOUNTS.exists() else ""
    return list(file_system_problems(folder, file_system(folder.resolve(), mounts)))


def file_system(folder: Path, mounts: str) -> str:
    """Return the type of the file system that a folder is on, as proc(5)'s mountinfo says."""
    found: dict[Path, str] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        # Spaces in names are octal there.
        point = before.split()[4].replace("\\040", " ")
        found[Path(point)] = after.split()[0]
    return next((found[each] for each in (folder, *folder.parents) if each in found), "")


def file_system_problems(folder: Path, kind: str) -> Iterator[str]:
    if kind in _VOLATILE:
        yield (
            f"{folder} is in memory ({kind}): all is lost when the machine stops; "
            "set CASEWIRE_DATA_DIR to a folder on a disk"
        )
    if kind in _NETWORK:
        yield (
            f"{folder} is on a network file system ({kind}), whose locks and flushes cannot be "
            "relied on; set CASEWIRE_DATA_DIR to a folder on a disk of this machine"
        )


async def disk(config: Config) -> Sequence[str]:
    """Look how much is free, and at a broker of our own how long that will do."""
    open_data_dir(config.data_dir)
    free = shutil.disk_usage(config.data_dir).free
    problems = disk_problems(config.data_dir, free)
    if problems or not config.own_broker:
        return problems
    return list(filling_problems(config.data_dir, free, await filling(config)))


def disk_problems(folder: Path, free_bytes: int) -> Sequence[str]:
    if free_bytes >= LEAST_FREE_BYTES:
        return []
    free = free_bytes // 1024**2
    return [f"only {free} MiB are free at {folder}; free some, or move the data directory"]


@dataclass(frozen=True, slots=True)
class Filling:
    """How a broker's disk fills: bytes that it holds, and the captured events of which they are.

    `latest` of them came in the latest `seconds`.
    """

    held_bytes: int
    events: int
    latest: int
    seconds: float

    @property
    def bytes_a_day(self) -> float:
        """How much comes in a day at the present rate."""
        if not self.events:
            return 0.0
        return self.held_bytes / self.events * self.latest / self.seconds * _DAY_SECONDS


async def filling(config: Config) -> Filling:
    """Measure the rate of the last day; of less, if there has been less."""
    topic = config.cluster.topic("captured")
    places = [TopicPartition(*each) for each in await partition_numbers(config.cluster, [topic])]
    now_ms = int(time.time() * 1000)
    async with consuming(config.cluster) as consumer:
        begins = await consumer.beginning_offsets(places)
        ends = await consumer.end_offsets(places)
        firsts = await consumer.offsets_for_times(dict.fromkeys(places, now_ms - DAY_MS))
    found = {place: first for place, first in firsts.items() if first is not None}
    oldest_ms = min((first.timestamp for first in found.values()), default=now_ms)
    log = config.data_dir / "kafka" / "log"
    return Filling(
        held_bytes=sum(file.stat().st_blocks * 512 for file in log.rglob("*.log")),
        events=sum(ends[place] - begins[place] for place in places),
        latest=sum(ends[place] - first.offset for place, first in found.items()),
        seconds=max((now_ms - oldest_ms) / 1000, 3600),
    )


def filling_problems(folder: Path, free_bytes: int, found: Filling) -> Iterator[str]:
    """Judge whether the disk is full before retention makes as much room as comes."""
    rate = found.bytes_a_day
    kept = rate * _RETENTION_DAYS
    if rate * LEAST_DAYS > free_bytes and kept > free_bytes + found.held_bytes:
        yield (
            f"at the present rate of {rate / 1024**3:.1f} GiB a day {folder} is full in "
            f"{free_bytes / rate:.0f} days; give it {kept / 1024**3:.0f} GiB in all, or lower "
            "[kafka] retention_bytes"
        )


async def system(config: Config) -> Sequence[str]:
    """Look at the limits of running roles, and at systemd's units."""
    return [*_limit_problems(config), *_all_unit_problems(config.data_dir)]


def _limit_problems(config: Config) -> Iterator[str]:
    wanted = files_wanted(config.ingress.max_connections)
    for process in running(config.run_dir):
        limits = Path(f"/proc/{process.pid}/limits")
        if process.role == "ingress" and limits.exists():
            allowed = open_files(limits.read_text(encoding="ascii"))
            if allowed is not None and allowed < wanted:
                yield (
                    f"ingress (process {process.pid}) may open {allowed} files, and "
                    f"{config.ingress.max_connections} connections need {wanted}; set "
                    "LimitNOFILE= in its unit or ulimit -n, or lower [ingress] max_connections"
                )


def open_files(limits: str) -> int | None:
    """Return how many files a process may open, as proc(5) says; None for any number."""
    found = re.search(r"^Max open files\s+(\d+)", limits, re.MULTILINE)
    return int(found[1]) if found else None


def _all_unit_problems(data_dir: Path) -> Iterator[str]:
    for file in sorted(_UNIT_FOLDER.glob("casewire*.service")):
        for problem in unit_problems(file.read_text(encoding="utf-8"), data_dir):
            yield f"{file}: {problem}, then systemctl daemon-reload"


def unit_problems(unit: str, data_dir: Path) -> Iterator[str]:
    """Yield what a unit keeps a role from doing, which then looks like a fault of Casewire's."""
    keys: dict[str, str] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE):
        keys[name] = f"{keys.get(name, '')} {value}".strip()
    for key, hidden in (("ProtectHome", ("/home", "/root")), ("PrivateTmp", ("/tmp", "/var/tmp"))):  # noqa: S108
        if keys.get(key) in ("true", "yes") and _within(data_dir, hidden):
            yield f"{key}= hides the data directory {data_dir}; move it to /var/lib/casewire"
    writable = f"{keys.get('ReadWritePaths', '')} {keys.get('ReadWriteDirectories', '')}".split()
    if name := keys.get("StateDirectory"):
        writable.append(f"/var/lib/{name}")
    if keys.get("ProtectSystem") == "strict" and not _within(data_dir, writable):
        yield f"ProtectSystem=strict lets nothing be written; add ReadWritePaths={data_dir}"
    if re.search(r"casewire\s+(\S+\s+)*up\b", keys.get("ExecStart", "")):
        yield from _up_problems(keys.get("KillMode", ""), keys.get("TimeoutStopSec", "90"))


def _up_problems(kill_mode: str, stop: str) -> Iterator[str]:
    if kill_mode != "mixed":
        yield "without KillMode=mixed the broker is stopped together with what needs it; add it"
    if stop.removesuffix("s").isdecimal() and int(stop.removesuffix("s")) < _UP_STOP_SECONDS:
        yield f"the broker may be killed before it has ended; set TimeoutStopSec={_UP_STOP_SECONDS}"


def _within(folder: Path, places: Sequence[str]) -> bool:
    return any(folder.is_relative_to(place.lstrip("-+")) for place in places)
