"""The bare job on each engine: the last value of a key is its state, on a changelog."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.streams.events import truth
from benchmarks.streams.lab import Topics, key_of, last_values
from benchmarks.streams.measure import Meter, Sample, Watched

_HERE: Final = Path(__file__).parent
_JAVA: Final = _HERE / "java"
_STOP_SECONDS: Final = 30
_QUIET_LOG: Final = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
_ZSTD: Final = "producer.compression.type=zstd"

OURS: Final = "Casewire"
QUIX: Final = "quixstreams"
KAFKA_STREAMS: Final = "Kafka Streams"
#: The engines that a target is a ratio to: those that publish the states too.
PEERS: Final = (QUIX, KAFKA_STREAMS, f"{KAFKA_STREAMS}, zstd")


@dataclass(frozen=True, slots=True)
class Tools:
    """What the engines are started with; all of it is in a folder of the benchmark's own."""

    python: Path
    py_spy: Path
    jars: Path

    @classmethod
    def made(cls, folder: Path) -> "Tools":
        """Get quixstreams and Kafka Streams by uv and Maven, unless they are there already."""
        venv, jars = folder / "venv", folder / "jars"
        wanted = [(_HERE / "requirements.txt").read_text(), (_JAVA / "pom.xml").read_text()]
        stamp = folder / "stamp"
        if not stamp.exists() or stamp.read_text() != "".join(wanted):
            shutil.rmtree(folder, ignore_errors=True)
            uv = str(Path(sys.executable).parent / "uv")
            subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(venv)], check=True)
            requirements = ["-r", str(_HERE / "requirements.txt")]
            install = [uv, "pip", "install", "-q", "--python", str(venv / "bin" / "python")]
            subprocess.run([*install, *requirements], check=True)
            _maven("dependency:copy-dependencies", f"-DoutputDirectory={jars}")
            stamp.write_text("".join(wanted))
        _maven("compile")
        return cls(venv / "bin" / "python", venv / "bin" / "py-spy", jars)


def _maven(*goals: str) -> None:
    subprocess.run(["mvn", "-q", "-B", "-f", str(_JAVA / "pom.xml"), *goals], check=True)


@dataclass(frozen=True, slots=True)
class Engine:
    """`states` are the topics that have the states in the end, by `{group}` and `{prefix}`.

    `extra` are arguments behind those that all engines take.
    """

    name: str
    command: Sequence[str]
    states: Sequence[str]
    extra: Sequence[str] = ()


def engines(tools: Tools) -> Sequence[Engine]:
    python = (sys.executable, "-m")
    worker, states = (*python, "benchmarks.streams.worker"), ("{prefix}case-state",)
    quix = (str(tools.python), str(_HERE / "quix.py"))
    classpath = f"{_JAVA / 'target' / 'classes'}:{tools.jars}/*"
    java = ("java", _QUIET_LOG, "-cp", classpath, "org.casewire.benchmarks.LatestState")
    quix_log = "changelog__{group}--{prefix}cases--default"
    java_log = "{group}-latest-changelog"
    out = "{prefix}out"
    return (
        Engine(OURS, (*worker, "bare"), states),
        Engine(f"{OURS}, on disk", (*worker, "bare-rocksdb"), states),
        Engine(QUIX, quix, (quix_log, out), ("out",)),
        Engine(f"{QUIX}, changelog only", quix, (quix_log,), ("",)),
        Engine(KAFKA_STREAMS, java, (java_log, out), ("rocksdb", "out")),
        Engine(f"{KAFKA_STREAMS}, zstd", java, (java_log, out), ("rocksdb", "out", _ZSTD)),
        Engine(
            f"{KAFKA_STREAMS}, zstd, in memory, changelog only",
            java,
            (java_log,),
            ("memory", "", _ZSTD),
        ),
        Engine("aiokafka alone, no recovery", (*python, "benchmarks.streams.plain"), (out,)),
    )


@dataclass(frozen=True, slots=True)
class Job:
    """`total` records of `source` (short name), the first `warm` of which are not measured."""

    topics: Topics
    source: str
    warm: int
    total: int


@dataclass(slots=True)
class Run:
    """A process that works off a job; it says "warm" when so many records went through."""

    process: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    async def warm(self, count: int) -> int:
        """Return `count` when it says so; RuntimeError with the end of its log if it ends first."""
        output = self.process.stdout
        while output is not None and (line := await output.readline()):
            if line.strip() == b"warm":
                return count
        raise RuntimeError(f"it ended:\n{self.log.read_text()[-3000:]}")


@contextlib.asynccontextmanager
async def running(
    command: Sequence[str], job: Job, group: str, folder: Path, extra: Sequence[str] = ()
) -> AsyncIterator[Run]:
    """Start a process on a job with an empty folder, and end it."""
    kafka = job.topics.kafka
    arguments = (kafka.bootstrap_servers, kafka.topic_prefix, group, job.warm, job.total)
    log = _log_in(folder)
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, *map(str, arguments), str(folder / "data"), *extra,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    try:
        yield Run(process, log)
    finally:
        await _end(process)


def _log_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder / "log"


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.communicate(), _STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


async def bare(engine: Engine, job: Job, watched: Watched, folder: Path) -> Sample:
    """Measure the bare job on an engine. Raises RuntimeError if its states are wrong."""
    topics = job.topics
    await topics.anew([job.source])
    group = topics.kafka.group(folder.name)
    states = [name.format(group=group, prefix=topics.kafka.topic_prefix) for name in engine.states]
    await topics.create(states)  # an engine on a busy broker may not find what it has just created

    async def progress() -> int:
        return await topics.committed(group, job.source)

    async with running(engine.command, job, group, folder, engine.extra) as run:
        meter = Meter([run.pid], watched)
        sample = await meter.measure(run.warm(job.warm), progress, job.total)
    for name in states:
        await _require_truth(topics, name, job)
    return sample


async def _require_truth(topics: Topics, topic: str, job: Job) -> None:
    """Raise RuntimeError unless a topic (full name) says the last value of each key."""
    last = {key_of(case): body for case, body in truth(job.total).last.items()}
    # quixstreams' changelog has its own name of the value behind each key.
    found = {
        key.partition(b"|")[0]: value for key, value in (await last_values(topics, topic)).items()
    }
    if found != last:
        wrong = sum(found.get(key) != value for key, value in last.items())
        raise RuntimeError(f"{topic} is wrong about {wrong} of {len(last)} keys")
