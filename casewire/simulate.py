"""`casewire simulate`: makes a project's history, sends it, and says what the truth is."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import click
import orjson

from casewire.forwarder import Report, Result, forward_all, require_answer, shown_progress
from casewire.hq import Request
from casewire.simulation.delivery import deliver, deserved
from casewire.simulation.history import Format, Plan, make_history
from casewire.target import Target, target_options
from casewire.truth import Truth
from schemas.errors import ConfigError

_PLACE: Final = "/api/v1/in/"
_COUNT: Final = click.IntRange(1)
_SHARE: Final = click.FloatRange(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the options of the command say about the history and its delivery."""

    seed: int
    cases: int
    changes: int
    format: Format
    end: datetime | None
    undecidable: bool
    in_order: bool
    shuffled: bool
    duplicates: float
    late: float
    broken: int

    @classmethod
    def chosen(cls, values: Mapping[str, Any]) -> Self:
        """Take what is ours of the command's values."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


@click.command(epilog="Example: casewire simulate --seed 7 --format json --truth truth.json")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--cases", type=_COUNT, default=300, show_default=True, help="How many cases.")
@click.option("--changes", type=_COUNT, default=2000, show_default=True, help="How many changes.")
@click.option("--format", type=click.Choice(["json", "xml", "mixed"]), default="mixed",
              show_default=True, help="What the case and form forwarders send.")  # fmt: skip
@click.option("--end", type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]),
              help="When the history ends (UTC); now if not given.")  # fmt: skip
@click.option("--undecidable", is_flag=True, help="All that HQ can do, also what no rule decides.")
@click.option("--in-order", is_flag=True, help="One by one, in HQ's order, nothing twice or late.")
@click.option("--shuffled", is_flag=True, help="In no order at all.")
@click.option("--duplicates", type=_SHARE, default=0.1, show_default=True, help="Share sent twice.")
@click.option("--late", type=_SHARE, default=0.05, show_default=True, help="Share that is late.")
@click.option("--broken", type=click.IntRange(0), default=8, show_default=True,
              help="How many broken bodies to send among the good.")  # fmt: skip
@target_options
@click.option("--workers", type=_COUNT, default=7, show_default=True, help="Requests at once.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Write the requests to this folder instead of sending them.")  # fmt: skip
@click.option("--truth", "truth_file", type=click.Path(dir_okay=False, path_type=Path),
              help="Write what must come out to this file.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what was sent as JSON.")
@click.pass_context
def simulate(context: click.Context, /, **chosen: Any) -> None:
    """Send the history of a made-up project, as CommCare HQ would forward it.

    The same seed, end and options make the same requests. Exits with 1 if one was not delivered.
    """
    target, choices = Target.chosen(chosen), Choices.chosen(chosen)
    requests, truth = prepared(domain_of(target.to), choices, datetime.now(UTC))
    if chosen["truth_file"]:
        _write(chosen["truth_file"], truth.to_json())
    if chosen["out"]:
        write_requests(requests, chosen["out"])
        sent, failed = dict(Counter(each.kind for each in requests)), 0
    else:
        workers = 1 if choices.in_order else chosen["workers"]
        report = _sent(requests, target, workers)
        sent, failed = report.counts(), len(report.failed)
    _tell(sent, failed, truth, as_json=chosen["as_json"])
    context.exit(1 if failed else 0)


def prepared(domain: str, choices: Choices, now: datetime) -> tuple[Sequence[Request], Truth]:
    """Return the requests that were asked for, as they arrive, and the truth."""
    plan = Plan(
        domain=domain,
        cases=choices.cases,
        changes=choices.changes,
        format=choices.format,
        decidable=not choices.undecidable,
    )
    ends = choices.end.replace(tzinfo=UTC) if choices.end else now
    history = make_history(choices.seed, ends, plan)
    requests = deliver(
        history,
        choices.seed,
        duplicates=0 if choices.in_order else choices.duplicates,
        late=0 if choices.in_order else choices.late,
        shuffled=choices.shuffled,
        broken=choices.broken,
    )
    return requests, replace(history.truth, broken=deserved(requests))


def domain_of(address: str) -> str:
    """Return the project space in an ingress' address. Raises click.UsageError if there is none."""
    _, place, rest = urlsplit(address).path.partition(_PLACE)
    domain = rest.split("/")[0]
    if not place or not domain:
        raise click.UsageError(f"--to must end in {_PLACE}DOMAIN, and {address!r} does not")
    return domain


def write_requests(requests: Sequence[Request], folder: Path) -> None:
    """Write each body to a file, and `requests.jsonl` that tells the order and all else."""
    lines = []
    for number, request in enumerate(requests, start=1):
        suffix = "json" if request.content_type == "application/json" else "xml"
        name = f"{number:06}-{request.kind}.{suffix}"
        _write(folder / name, request.body)
        headers = {"content-type": request.content_type, **dict(request.headers)}
        line = {"file": name, "kind": request.kind, "subject": request.subject,
                "label": request.label, "query": request.query, "headers": headers,
                "cause": request.cause}  # fmt: skip
        lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    _write(folder / "requests.jsonl", b"".join(lines))


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}); correct that") from error


def _sent(requests: Sequence[Request], target: Target, workers: int) -> Report:
    async def work(progress: Callable[[Result], None]) -> Report:
        options = target.options()
        await require_answer(target.to, options)
        return await forward_all(
            requests, target.to, workers=workers, options=options, progress=progress
        )

    with shown_progress(len(requests)) as progress:
        return asyncio.run(work(progress))


def _tell(sent: dict[str, int], failed: int, truth: Truth, *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps({"sent": sent, "failed": failed, "changes": truth.changes,
                                 "broken": truth.broken, "cases": len(truth.cases)}))  # fmt: skip
        return
    for kind, count in sorted(sent.items()):
        click.echo(f"{count:7}  {kind}")
    causes = ", ".join(f"{count} {cause}" for cause, count in sorted(truth.broken.items()))
    click.echo(f"{sum(sent.values()):7}  in all; {len(truth.cases)} cases; broken: {causes or 0}")
    if failed:
        click.echo(f"{failed:7}  not delivered; is casewire ingress running at that address?")
