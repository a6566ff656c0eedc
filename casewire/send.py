"""`casewire send`: posts files as CommCare HQ would."""

import asyncio
from dataclasses import replace
from typing import Any

import click
import orjson

from casewire.files import FILE, read_file
from casewire.forwarder import forward_all, shown_progress
from casewire.guess import guessed
from casewire.target import Target, target_options


@click.command(
    epilog="Example: casewire send case.json form.xml --received-on 2026-11-22T10:00:00.000000Z"
)
@click.argument("files", nargs=-1, required=True, type=FILE)
@target_options
@click.option("--header", "headers", multiple=True, help="A header to add, as NAME:VALUE.")
@click.option("--app-id", default="", help="The app id in the address of forms.")
@click.option("--received-on", default="", help="The header of forms that do not say it.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_context
def send(context: click.Context, /, **chosen: Any) -> None:
    """Post files as CommCare HQ would, with its headers, retries and waits.

    What a file is, and so its headers, is told from its content. Exits with 1 if one was not
    delivered.
    """
    target = Target.chosen(chosen)
    extra = [_header(text) for text in chosen["headers"]]
    requests = [
        replace(request, headers=(*request.headers, *extra))
        for request in (
            guessed(
                file.name,
                read_file(file),
                app_id=chosen["app_id"],
                received_on=chosen["received_on"],
            )
            for file in chosen["files"]
        )
    ]
    with shown_progress(len(requests)) as progress:
        work = forward_all(requests, target.to, options=target.options(), progress=progress)
        report = asyncio.run(work)
    if chosen["as_json"]:
        click.echo(orjson.dumps([result.to_dict() for result in report.results]))
    else:
        for result in report.results:
            click.echo(str(result))
    context.exit(1 if report.failed else 0)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"{text!r} is no header; write --header NAME:VALUE")
    return name.strip(), value.strip()
