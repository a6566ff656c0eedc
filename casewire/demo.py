"""`casewire up --demo`: sends a simulated project, waits for it, and tells what became of it."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson
from rich.console import Console

from casewire.config import Config
from casewire.forwarder import Report, forward_all, shown_progress
from casewire.progress import await_caught_up
from casewire.reading import read_topic
from casewire.simulation.delivery import deliver
from casewire.simulation.history import Plan, make_history
from casewire.sink_config import sources
from casewire.sums import Sums, count_sums
from casewire.supervisor import Say
from casewire.truth import Truth, compare
from schemas.errors import ConfigError

DOMAIN: Final = "demo"
_SEED: Final = 1
_SECONDS_BETWEEN_LINES: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What happened. `states` and `gone` count cases; `differences` are those from the truth."""

    changes: int
    received: int
    undelivered: int
    states: int
    gone: int
    sums: Sums
    differences: Sequence[str]


def require_open(config: Config) -> None:
    """Raise ConfigError if the demo's project space could not forward to this ingress."""
    if config.domains:
        raise ConfigError(
            "--demo sends to a configuration without [domains.NAME]; "
            "run it in a folder without casewire.toml, with CASEWIRE_DATA_DIR=var/demo"
        )


async def run_demo(config: Config, plan: Plan, say: Say) -> Story:
    """Send a history to the running ingress, wait until it is in every sink, and count."""
    history = make_history(_SEED, datetime.now(UTC), plan)
    requests = deliver(history, _SEED)
    say(
        f"sending a made-up project: {len(history.truth.cases)} cases, {plan.changes:,} changes, "
        f"{len(requests):,} requests"
    )
    with shown_progress(len(requests)) as progress:
        report = await forward_all(requests, address(config), progress=progress)
    say("waiting until it is in every sink")
    with _shown_wait(say) as waiting:
        await await_caught_up(config.cluster, sources(config.sinks), waiting)
    return await _story(config, plan, report, history.truth)


def address(config: Config) -> str:
    return f"http://{config.ingress.bind}/api/v1/in/{DOMAIN}"


async def _story(config: Config, plan: Plan, report: Report, truth: Truth) -> Story:
    latest: dict[bytes | None, bytes | None] = {}
    async for record in read_topic(config.cluster, "case-state"):
        latest[record.key] = record.value
    states = [value for value in latest.values() if value is not None]
    gone = sum(bool(orjson.loads(value)["deleted"]) for value in states)
    return Story(
        changes=plan.changes,
        received=len(report.results) - len(report.failed),
        undelivered=len(report.failed),
        states=len(states) - gone,
        gone=gone,
        sums=await count_sums(config.cluster, sources(config.sinks)),
        differences=compare(truth, states),
    )


def told(story: Story) -> str:
    """Return the story for a person to read."""
    sums = story.sums
    lines = [
        "what happened",
        f"  received      {story.received:7,}  requests, answered 200 when Kafka had them",
        f"  case states   {story.states:7,}  and {story.gone} that are gone",
    ]
    for topic, judged in sums.judged.items():
        ends = ", ".join(f"{count:,} {end}" for end, count in sorted(judged.outcomes.items()))
        lines.append(f"  {topic:<13} {judged.events:7,}  events: {ends or 'none'}")
    dead = ", ".join(f"{count} {cause}" for cause, count in sorted(sums.dead.items()))
    lines.append(f"  dead letters  {sum(sums.dead.values()):7,}  {dead}".rstrip())
    return "\n".join([*lines, *_verdict(story)])


def _verdict(story: Story) -> Sequence[str]:
    wrong = []
    if story.undelivered:
        wrong.append(f"{story.undelivered} requests were not answered with 200")
    if not story.sums.match:
        left = sum(len(each.unsettled) for each in story.sums.sinks)
        wrong.append(
            f"{len(story.sums.lost)} events are lost or not judged, and {left} in no sink's ledger"
        )
    if story.differences:
        first = story.differences[0]
        wrong.append(f"{len(story.differences)} states differ from the truth, first: {first}")
    if wrong:
        return [f"  WRONG: {text}; please report it" for text in wrong]
    return ["  every state is what the simulation says it must be, and nothing is lost"]


def where_to_look(config: Config, console: str) -> str:
    """Return the addresses, and three commands to try; `console` is its address, and who may."""
    command = command_line(config, sys.argv[0])
    return "\n".join(
        [
            "where to look",
            f"  address for CommCare HQ  {address(config)} (behind a public https address)",
            f"  database                 {config.data_dir / 'sqlite' / f'{DOMAIN}.db'}",
            f"  console                  {console}",
            "try",
            f"  {command} tail case-state --since-beginning -n 1",
            f"  {command} tail dead-letters --since-beginning -n 1",
            f"  {command} doctor",
            "it stays up until Ctrl-C",
        ]
    )


def command_line(config: Config, program: str) -> str:
    """Return how to call the command from here so that it finds this very system."""
    defaults: Mapping[str, tuple[str, str]] = {
        "CASEWIRE_DATA_DIR": (os.path.relpath(config.data_dir), "var"),
        "KAFKA_BOOTSTRAP_SERVERS": (config.cluster.bootstrap_servers, "127.0.0.1:9092"),
        "CASEWIRE_INGRESS_BIND": (config.ingress.bind, "127.0.0.1:8080"),
    }
    settings = [f"{name}={value}" for name, (value, usual) in defaults.items() if value != usual]
    name = os.path.relpath(program) if Path(program).name == "casewire" else "casewire"
    return " ".join([*settings, name])


@contextlib.contextmanager
def _shown_wait(say: Say) -> Iterator[Callable[[str, int], None]]:
    """Show how far a group is behind: in place on a terminal, else a line a minute."""
    if sys.stderr.isatty():
        with Console(stderr=True).status("") as status:
            yield lambda group, left: status.update(f"{group}: {left:,} records to go")
        return
    said_at = time.monotonic()

    def line(group: str, left: int) -> None:
        nonlocal said_at
        if left and time.monotonic() - said_at >= _SECONDS_BETWEEN_LINES:
            said_at = time.monotonic()
            say(f"{group}: {left:,} records to go")

    yield line
