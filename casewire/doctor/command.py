"""`casewire doctor`: looks at everything that can be wrong, and says what to do."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final, TypeAlias

import click
import orjson

from casewire.cli import Launch
from casewire.config import Config
from casewire.doctor import cluster, machine, permissions, roles, versions
from casewire.doctor.public import look
from schemas.errors import CasewireError, ConfigError


@dataclass(frozen=True, slots=True)
class Problem:
    """One sentence: what is wrong, and what to do."""

    area: str
    text: str

    def __str__(self) -> str:
        return f"{self.area}: {self.text}"


Check: TypeAlias = Callable[[], Awaitable[Sequence[str]]]

#: By area. What several find is told where it is found first.
CHECKS: Final[Sequence[tuple[str, Callable[[Config], Awaitable[Sequence[str]]]]]] = (
    ("configuration", machine.secrets),
    ("data directory", machine.data_directory),
    ("system", machine.system),
    ("versions", versions.this_installation),
    ("broker", cluster.brokers),
    ("broker", versions.of_the_brokers),
    ("topics", cluster.topics),
    ("versions", versions.of_the_workers),
    ("permissions", permissions.permissions),
    ("clock", cluster.clocks),
    ("disk", machine.disk),
    ("addresses", roles.addresses),
    ("roles", roles.roles),
    ("ingress", roles.ingress),
    ("sinks", roles.sinks),
    ("deliveries", roles.deliveries),
)


@click.command(
    epilog="Example: casewire doctor --public https://casewire.example.org/api/v1/in/my-project"
)
@click.option(
    "--public", metavar="URL", help="Check only what CommCare HQ needs of this address, from here."
)
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
@click.pass_context
def doctor(context: click.Context, /, *, public: str | None, as_json: bool) -> None:
    """Check configuration, disk, system, versions, broker, topics, clocks, roles and sinks.

    Of what each sink has passed last, it checks that the ledger tells how it ended. One line a
    problem, with the remedy; exit with 1 if there is one.

    With --public no configuration is needed: run it on another machine, outside of your network. It
    stores nothing.
    """
    # What they would tell is told in sentences.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    if public is None:
        problems, looked_at = _examined(context.ensure_object(Launch)), ", ".join(dict(CHECKS))
    else:
        problems, looked_at = asyncio.run(_looked_at(public)), public
    if as_json:
        click.echo(orjson.dumps([asdict(problem) for problem in problems]))
    else:
        for problem in problems:
            click.echo(str(problem))
        if not problems:
            click.echo(f"nothing is wrong with {looked_at}")
    context.exit(1 if problems else 0)


async def _looked_at(url: str) -> Sequence[Problem]:
    return [Problem(area, text) async for area, text in look(url)]


def _examined(launch: Launch) -> Sequence[Problem]:
    try:
        config = launch.config()
    except ConfigError as error:
        return [Problem("configuration", line) for line in str(error).splitlines()]
    return asyncio.run(examine(config))


async def examine(config: Config) -> Sequence[Problem]:
    """Make every check of an installation."""
    return await made([(area, partial(check, config)) for area, check in CHECKS])


async def made(checks: Sequence[tuple[str, Check]]) -> Sequence[Problem]:
    """Make checks; one that fails does not keep the others from being made."""
    problems: dict[str, Problem] = {}
    for area, check in checks:
        try:
            texts = await check()
        except CasewireError as error:
            texts = [str(error)]
        for text in texts:
            problems.setdefault(text, Problem(area, text))
    return list(problems.values())
