"""`casewire doctor`: looks at everything that can be wrong on this machine, and says what to do."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
import click
import orjson
from aiokafka import TopicPartition

from casewire.cli import Launch
from casewire.config import Config
from casewire.data_dir import open_data_dir
from casewire.health import running
from casewire.reading import consuming
from casewire.settled import Settled, count_settled
from casewire.sink_config import sources
from casewire.supervisor import ask_ready
from casewire.topics import check_topics, partition_numbers
from schemas.envelope import Headers
from schemas.errors import CasewireError, DeliveryError
from schemas.times import to_microseconds
from sinks.registry import make_sink
from streams.records import header

#: Below it SQLite and the broker will soon stop.
LEAST_FREE_BYTES: Final = 1024**3
#: Clocks of machines with NTP differ by much less.
CLOCK_SECONDS: Final = 60
#: Offsets of each partition that a sink has passed and whose ends are looked at, the latest ones.
LATEST_OFFSETS: Final = 10_000
_DOMAIN_NOBODY_HAS: Final = "casewire-doctor"


@dataclass(frozen=True, slots=True)
class Problem:
    """One sentence: what is wrong, and what to do."""

    area: str
    text: str

    def __str__(self) -> str:
        return f"{self.area}: {self.text}"


Check: TypeAlias = Callable[[Config], Awaitable[Sequence[str]]]


@click.command(epilog="Example: casewire doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
@click.pass_context
def doctor(context: click.Context, /, *, as_json: bool) -> None:
    """Check configuration, data directory, broker, topics, roles, ingress, sinks and clock.

    Of what each sink has passed last, it checks that the ledger tells how it ended. One line a
    problem, with the remedy; exit with 1 if there is one.
    """
    problems = asyncio.run(examine(context.ensure_object(Launch).config()))
    if as_json:
        click.echo(orjson.dumps([asdict(problem) for problem in problems]))
    else:
        for problem in problems:
            click.echo(str(problem))
        if not problems:
            click.echo("nothing is wrong")
    context.exit(1 if problems else 0)


async def examine(config: Config) -> Sequence[Problem]:
    """Make every check; one that fails does not keep the others from being made."""
    problems = []
    for area, check in CHECKS.items():
        try:
            texts = await check(config)
        except CasewireError as error:
            texts = [str(error)]
        problems += [Problem(area, text) for text in texts]
    return problems


async def _data_directory(config: Config) -> Sequence[str]:
    open_data_dir(config.data_dir)
    try:
        with tempfile.TemporaryFile(dir=config.data_dir) as file:
            file.write(b"casewire")
    except OSError as error:
        return [f"{config.data_dir} cannot be written ({error.strerror}); correct its permissions"]
    return disk_problems(config.data_dir, shutil.disk_usage(config.data_dir).free)


def disk_problems(folder: Path, free_bytes: int) -> Sequence[str]:
    if free_bytes >= LEAST_FREE_BYTES:
        return []
    free = free_bytes // 1024**2
    return [f"only {free} MiB are free at {folder}; free some, or move the data directory"]


async def _topics(config: Config) -> Sequence[str]:
    return [str(difference) for difference in await check_topics(config.cluster)]


async def _roles(config: Config) -> Sequence[str]:
    found = [each for each in running(config.run_dir) if each.role != "broker"]
    expected = {
        "ingress": "ingress",
        "streams": "streams",
        **{f"sink-{name}": f"sink {name}" for name in config.sinks},
    }
    if config.alerts.mail_to or config.alerts.urls:
        expected["alerts"] = "alerts run"
    problems = [
        f"{role} does not run here; start casewire up, or casewire {expected[role]}"
        for role in sorted(expected.keys() - {process.role for process in found})
    ]
    for process in found:
        reason = await ask_ready(process.address)
        if reason is not None:
            log = config.run_dir / f"{process.role}.log"
            problems.append(
                f"{process.role} (process {process.pid}) is not ready: {reason}; see {log}"
            )
    return problems


async def _ingress(config: Config) -> Sequence[str]:
    """Ask as HQ's "Test connection" does; any answer shows that the ingress is there."""
    domain = next(iter(config.domains), _DOMAIN_NOBODY_HAS)
    url = f"http://{config.ingress.bind}/api/v1/in/{domain}"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(url) as answer,
        ):
            return ingress_problems(url, answer.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        return [f"{url} does not answer ({type(error).__name__}); start casewire up"]


def ingress_problems(url: str, status: int) -> Sequence[str]:
    """Judge the answer to a GET without credentials; 503 is also that to an unknown domain."""
    if status in (200, 401, 403, 503):
        return []
    return [f"{url} answers {status}, which no ingress does; end the program that has its address"]


async def _sinks(config: Config) -> Sequence[str]:
    problems = []
    for name, settings in config.sinks.items():
        target = make_sink(name, settings, config.data_dir)
        try:
            await target.open()
        except DeliveryError as error:
            said = f"; it says: {error.target_error}" if error.target_error else ""
            problems.append(f"{name} cannot be opened ({error}){said}; correct [sinks.{name}]")
        finally:
            await target.close()
    return problems


async def _deliveries(config: Config) -> Sequence[str]:
    """Count the third sum of contract §6 over the latest offsets that each sink has passed."""
    counted = await count_settled(config.cluster, sources(config.sinks), LATEST_OFFSETS)
    return [unsettled_problem(each) for each in counted if each.unsettled]


def unsettled_problem(counted: Settled) -> str:
    stage, topic, partition = counted.source
    name = stage.removeprefix("sink:")
    return (
        f"the sink {name} has passed {len(counted.unsettled):,} events of {topic}/{partition} and "
        f"nothing says how they ended, the first at offset {counted.unsettled[0]}; write them "
        f"again by casewire replay --sink {name} --domain NAME, and report it"
    )


async def _clock(config: Config) -> Sequence[str]:
    """Compare this machine's clock with the broker's, and the ingress's on the latest events."""
    limit_ms = int((time.time() + CLOCK_SECONDS) * 1000)
    topic = config.cluster.topic("captured")
    places = [TopicPartition(*each) for each in await partition_numbers(config.cluster, [topic])]
    async with consuming(config.cluster) as consumer:
        later = await consumer.offsets_for_times(dict.fromkeys(places, limit_ms))
        latest = await _latest(consumer, places)
    remedy = "set the clocks of all machines by NTP"
    problems = []
    if any(later.values()):
        problems.append(
            f"the broker's clock is more than {CLOCK_SECONDS} s ahead of that of "
            f"{os.uname().nodename}; {remedy}"
        )
    if any(_is_ahead(record.headers, record.timestamp) for record in latest):
        problems.append(
            f"an ingress's clock is more than {CLOCK_SECONDS} s ahead of the broker's; {remedy}"
        )
    return problems


async def _latest(consumer: Any, places: Sequence[Any]) -> Sequence[Any]:
    """Return the last record of each partition that has one."""
    begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
    filled = [place for place in places if begins[place] < ends[place]]
    consumer.assign(filled)
    for place in filled:
        consumer.seek(place, ends[place] - 1)
    return [await consumer.getone(place) for place in filled]


def _is_ahead(headers: Headers, appended_ms: int) -> bool:
    """Whether an event says that it came later than the broker appended it."""
    try:
        came = to_microseconds(header(headers, "ce_time") or "")
    except ValueError:
        return False
    return came // 1000 > appended_ms + CLOCK_SECONDS * 1000


CHECKS: Final[dict[str, Check]] = {
    "data directory": _data_directory,
    "topics": _topics,
    "roles": _roles,
    "ingress": _ingress,
    "sinks": _sinks,
    "deliveries": _deliveries,
    "clock": _clock,
}
