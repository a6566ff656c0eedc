"""`casewire deliveries`: the story of a case at each sink."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from operator import attrgetter

import click
import orjson

from casewire.aligned import aligned, to_second
from casewire.case_deliveries import Delivered, Of, deliveries_of
from casewire.cli import Launch
from casewire.sink_config import sources


@click.command(epilog="Example: casewire deliveries 0a1b2c --domain my-project")
@click.argument("case_id", metavar="ID")
@click.option("--domain", default="", help="Its project space; quicker than to look for it.")
@click.option("--form", is_flag=True, help="ID is that of a form.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_obj
def deliveries(launch: Launch, /, case_id: str, *, domain: str, form: bool, as_json: bool) -> None:
    """Tell of the case ID how each of its versions ended at each sink.

    written, superseded (a newer version of the same batch went instead), stale (the target had a
    newer one), excluded by a rule, dead, or waiting. ID may be a key, my-project/0a1b2c.
    """
    config = launch.config()
    key = case_id if "/" in case_id else f"{domain}/{case_id}"
    of: Of = "form" if form else "case"
    found = asyncio.run(deliveries_of(config.cluster, sources(config.sinks), key, of))
    if as_json:
        click.echo(orjson.dumps([asdict(each) for each in found]))
    elif not found:
        click.echo(f"no topic that a sink reads has anything of the {of} {case_id}")
    else:
        for line in _told(found):
            click.echo(line)


def _told(found: Sequence[Delivered]) -> Iterator[str]:
    """Yield what to print, sink by sink."""
    for sink, ends in groupby(found, key=attrgetter("sink")):
        yield sink
        rows = [
            (
                f"  {to_second(each.at) or '-'}",
                each.outcome + (" (replay)" if each.replayed else ""),
                f"version {each.version}" if each.version else "event",
                f"received {to_second(each.captured_at)}",
                each.key,
            )
            for each in ends
        ]
        yield from aligned(rows)
