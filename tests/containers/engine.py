"""A Docker engine for the tests alone, and images on it, from Debian's packages: none is pulled."""

import contextlib
import fcntl
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

HERE = Path(__file__).parent

_START_SECONDS = 60
_BUILD_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine whose data, socket and logs are in `folder`."""

    folder: Path

    @property
    def address(self) -> str:
        return f"unix://{self.folder}/sock"

    def docker(self, *arguments: str, seconds: float = 60) -> str:
        """Run a command of Docker's; return what it prints, or fail with what it said."""
        return output(("docker", "-H", self.address, *arguments), seconds)

    def inspect(self, container: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = orjson.loads(self.docker("inspect", container))[0]
        return found


def output(
    command: tuple[str, ...], seconds: float = 60, env: Mapping[str, str] | None = None
) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=seconds, env=env
    )
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{end}")
    return done.stdout


@contextlib.contextmanager
def running_engine(folder: Path) -> Iterator[Engine]:
    """Run an engine until the end of the block. It needs root; tests/containers/install first."""
    with _as_the_network_was():
        command = ["dockerd", "--data-root", str(folder / "data"), "--exec-root"]
        command += [str(folder / "exec"), "--pidfile", str(folder / "pid")]
        engine = Engine(folder)
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen([*command, "-H", engine.address], stdout=log, stderr=log)
        try:
            _await_answer(engine, daemon)
            yield engine
        finally:
            daemon.terminate()
            daemon.wait(60)
            # Engines leave the names of containers' networks mounted.
            for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
                mounted = line.split()[1]
                if mounted.startswith(f"{folder}/"):
                    subprocess.run(["umount", mounted], check=True)
            shutil.rmtree(folder)


def _await_answer(engine: Engine, daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while daemon.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(RuntimeError):
            engine.docker("version")
            return
        time.sleep(0.2)
    raise RuntimeError(f"dockerd does not run: {(engine.folder / 'log').read_text()[-2000:]}")


@contextlib.contextmanager
def _as_the_network_was() -> Iterator[None]:
    """Take away the bridge and the rules that an engine makes and leaves, if it is the only one.

    Waits for the engine of another run: two would spoil each other's rules.
    """
    with Path("/run/casewire-test-engine").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _bridge_taken_away():
            yield


@contextlib.contextmanager
def _bridge_taken_away() -> Iterator[None]:
    alone = not Path("/sys/class/net/docker0").exists()
    rules = output(("iptables-save",)) if alone else ""
    try:
        yield
    finally:
        if alone:
            subprocess.run(["ip", "link", "delete", "docker0"], check=False)
            subprocess.run(["iptables-restore"], input=rules, text=True, check=True)


def make_base(engine: Engine) -> None:
    """Make `debian:bookworm-slim` of Debian's packages, with this machine's way to get packages."""
    root = engine.folder / "root"
    packages = ("--variant=minbase", "--include=ca-certificates")
    output(("debootstrap", *packages, "bookworm", str(root)), _BUILD_SECONDS)
    for name in ("sources.list", "sources.list.d/debian.sources"):
        (root / "etc/apt" / name).unlink(missing_ok=True)
        if (Path("/etc/apt") / name).exists():
            shutil.copy(Path("/etc/apt") / name, root / "etc/apt" / name)
    acquire = output(("apt-config", "dump", "Acquire"))
    (root / "etc/apt/apt.conf.d/90host").write_text(acquire, encoding="utf-8")
    for file in Path("/usr/local/share/ca-certificates").glob("*.crt"):
        shutil.copy(file, root / "usr/local/share/ca-certificates")
    output(("chroot", str(root), "env", "-u", "TMPDIR", "update-ca-certificates"))
    for left in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(root / left)
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
        load = ["docker", "-H", engine.address, "import", "-", "debian:bookworm-slim"]
        subprocess.run(load, stdin=tar.stdout, check=True, capture_output=True)
    shutil.rmtree(root)


def build_stand_in(engine: Engine, stage: str) -> str:
    """Build a stage of debian.Dockerfile; return the image's name."""
    file = ("-f", str(HERE / "debian.Dockerfile"), "--target", stage)
    return build_image(engine, f"casewire-test-{stage}", HERE, *file)


def build_image(engine: Engine, name: str, folder: Path, *options: str) -> str:
    """Build an image of a folder; return its name."""
    engine.docker("build", "-q", "-t", name, *options, str(folder), seconds=_BUILD_SECONDS)
    return name
