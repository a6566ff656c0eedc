"""`casewire domains`: the project spaces that may forward."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import click
import orjson

from casewire.cli import Launch
from casewire.config import Config
from casewire.connecting import address


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A project space, the path that it forwards to, and its credentials as `kind name`.

    Without credentials it is open to everybody who reaches the ingress.
    """

    domain: str
    url: str
    credentials: Sequence[str]


@click.command(epilog="Example: casewire domains --json")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_obj
def domains(launch: Launch, *, as_json: bool) -> None:
    """List the project spaces that may forward, their addresses, and how HQ logs in."""
    config = launch.config()
    found = forwarding(config)
    if as_json:
        click.echo(orjson.dumps([asdict(each) for each in found]))
        return
    for each in found:
        logins = ", ".join(each.credentials) or "open to everybody"
        click.echo(f"{each.domain}  {each.url}  {logins}")
    if not found:
        click.echo(nothing_configured(config))


def forwarding(config: Config) -> Sequence[Forwarding]:
    """Return the configured project spaces by name."""
    return [
        Forwarding(
            domain,
            address(domain).value,
            [f"{each.kind} {each.name}" for each in config.credentials if domain in each.domains],
        )
        for domain in sorted(config.domains)
    ]


def nothing_configured(config: Config) -> str:
    """Return what becomes of requests while no project space is configured."""
    what = "refused" if config.ingress.unknown_domains == "refuse" else "taken from everybody"
    return (
        f"no project space is configured, and what comes for any is {what}; "
        "make a configuration with casewire init --domain NAME"
    )
