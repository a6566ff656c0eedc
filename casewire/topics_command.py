"""`casewire topics`."""

import asyncio

import click
import orjson

from casewire.cli import Launch
from casewire.topics import check_topics, create_topics


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
