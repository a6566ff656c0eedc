"""`casewire topics`."""

import asyncio
from dataclasses import asdict

import click
import orjson

from casewire.cli import Launch
from casewire.sink_config import sources
from casewire.tables import nearest
from casewire.topics import check_topics, create_topics
from kafka_clients.rights import acl_commands, rights
from schemas.errors import ConfigError


@click.group(epilog="Example: casewire topics check")
def topics() -> None:
    """Create or check every topic with its partitions, replication and clean-up policy."""


@topics.command(epilog="Example: KAFKA_BOOTSTRAP_SERVERS=kafka:9092 casewire topics create")
@click.option("--json", "as_json", is_flag=True, help="Print the created topics' names as JSON.")
@click.pass_obj
def create(launch: Launch, *, as_json: bool) -> None:
    """Create the topics that are missing; leave the others as they are."""
    created = asyncio.run(create_topics(launch.config().cluster))
    if as_json:
        click.echo(orjson.dumps(created))
        return
    for name in created:
        click.echo(f"created {name}")
    if not created:
        click.echo("all topics were there already")


@topics.command(epilog="Example: casewire topics check --json")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
@click.pass_context
def check(context: click.Context, *, as_json: bool) -> None:
    """Compare all topics with what they should be; exit with 1 if one differs."""
    launch = context.ensure_object(Launch)
    found = asyncio.run(check_topics(launch.config().cluster))
    if as_json:
        click.echo(orjson.dumps([difference.to_dict() for difference in found]))
    else:
        for difference in found:
            click.echo(str(difference))
    if not found and not as_json:
        click.echo("all topics are as they should be")
    context.exit(1 if found else 0)


@topics.command(epilog="Example: casewire topics acls streams --user casewire-streams")
@click.argument("role", required=False)
@click.option("--user", help="The role's user on the cluster; casewire-ROLE by default.")
@click.option("--json", "as_json", is_flag=True, help="Print the rights as JSON.")
@click.pass_obj
def acls(launch: Launch, *, role: str | None, user: str | None, as_json: bool) -> None:
    """Print the kafka-acls commands that give ROLE (or each role) the rights that it needs.

    A role is ingress, streams, sink-NAME, alerts, operator (doctor, tail, replay, console and the
    like) or administrator (topics create and check). Nothing is asked and nothing changed.
    """
    config = launch.config()
    wanted = rights(config.cluster, sources(config.sinks))
    if role is not None and role not in wanted:
        raise ConfigError(f"there is no role {role!r}; did you mean {nearest(role, [*wanted])}?")
    if user is not None and role is None:
        raise ConfigError("--user is for one role; name it before")
    chosen = {name: each for name, each in wanted.items() if role in (None, name)}
    if as_json:
        click.echo(
            orjson.dumps({name: [asdict(right) for right in each] for name, each in chosen.items()})
        )
        return
    for name, each in chosen.items():
        click.echo(f"# {name}")
        for line in acl_commands(config.cluster, each, user or f"casewire-{name}"):
            click.echo(line)
