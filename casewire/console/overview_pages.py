"""What goes on, sinks, alerts, and how to connect a project space."""

import asyncio
from collections.abc import Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from casewire.alerts.messages import advice, is_of_letters, what_is_wrong
from casewire.alerts.troubles import Trouble
from casewire.alerts.writing import mute_group, read_troubles
from casewire.circuits import waiting_sinks
from casewire.connecting import (
    CONNECTION_PLACE,
    FORWARDERS,
    FORWARDING_PLACE,
    YOUR_HOST,
    Line,
    address,
    login,
)
from casewire.console.backend import backend_of, note, page, seen
from casewire.console.figures import Step, steps
from casewire.console.gate import ordered
from casewire.console.metrics import Action
from casewire.console.processes import Process
from casewire.console.wording import letters_link
from casewire.failures import OpenAlert
from casewire.sink_config import no_such_sink
from schemas.times import from_datetime, now
from sinks.settings import SinkTable
from streams.alarms import TargetCause

#: For how long a group can be muted.
SPANS: Final[Mapping[str, timedelta]] = {
    "30 minutes": timedelta(minutes=30),
    "2 hours": timedelta(hours=2),
    "12 hours": timedelta(hours=12),
    "1 day": timedelta(days=1),
    "7 days": timedelta(days=7),
}
#: What is wrong with a target while one of these alerts is open.
_TARGET_CAUSES: Final[Mapping[TargetCause, str]] = {
    "target_unavailable": "waits: the target does not answer",
    "target_refuses": "stopped: the target refuses its work",
}
_SECRET: Final = "the secret as casewire init or casewire auth add showed it"  # noqa: S105 - a hint


@dataclass(frozen=True, slots=True)
class SinkRow:
    """A sink, as the overview and its own page show it. `last` is when it wrote last, or empty."""

    name: str
    settings: SinkTable
    type: str
    place: str
    step: Step
    dead: int
    target: str
    last: str


async def overview(request: Request) -> Response:
    backend = backend_of(request)
    looked, waiting, here = await asyncio.gather(
        backend.figures.look(), waiting_sinks(backend.config.run_dir), backend.processes.look()
    )
    flows = {flow.name: flow for flow in looked.flows}
    targets = {
        f"sink-{name}": target_trouble(looked.alerts, waiting, name)
        for name in backend.config.sinks
    }
    return page(
        request,
        "overview.html",
        looked=looked,
        captured=flows["captured"],
        steps=steps(looked.readers),
        troubles=_troubles(here, targets),
        processes=here,
        dead=sum(cause.count for cause in looked.causes),
    )


def _troubles(here: Sequence[Process], targets: Mapping[str, str]) -> Mapping[str, str]:
    """Return what is wrong with each role, empty if nothing is; of a role's processes with one."""
    found = {each.role: each.problem for each in here}
    found |= {each.role: each.problem for each in here if each.problem}
    return found | {role: trouble for role, trouble in targets.items() if trouble}


async def sinks(request: Request) -> Response:
    return page(request, "sinks.html", sinks=await _sink_rows(request))


async def sink(request: Request) -> Response:
    name = request.path_params["name"]
    backend = backend_of(request)
    if name not in backend.config.sinks:
        raise HTTPException(404, no_such_sink(backend.config.sinks, name))
    row = next(each for each in await _sink_rows(request) if each.name == name)
    return page(request, "sink.html", sink=row, domains=list(backend.config.domains))


async def _sink_rows(request: Request) -> Sequence[SinkRow]:
    backend = backend_of(request)
    looked = await backend.figures.look()
    waiting = await waiting_sinks(backend.config.run_dir)
    last = await backend.figures.last_written()
    found = steps(looked.readers)
    return [
        SinkRow(
            name=name,
            settings=settings,
            type=str(settings.__struct_config__.tag),
            place=settings.place(backend.config.data_dir),
            step=found[f"sink-{name}"],
            dead=sum(each.count for each in looked.causes if each.stage == f"sink:{name}"),
            target=target_trouble(looked.alerts, waiting, name),
            last=last.get(name, ""),
        )
        for name, settings in backend.config.sinks.items()
    ]


def target_trouble(alerts: Sequence[OpenAlert], waiting: AbstractSet[str], name: str) -> str:
    """Return what is known to be wrong with a sink's target; empty if nothing is.

    `waiting` are the sinks of this machine whose target is down.
    """
    causes = {alert.cause for alert in alerts if alert.stage == f"sink:{name}"}
    found = [said for cause, said in _TARGET_CAUSES.items() if cause in causes]
    if name in waiting:
        found.append(_TARGET_CAUSES["target_unavailable"])
    return next(iter(found), "")


async def alerts(request: Request) -> Response:
    found = sorted(
        await read_troubles(backend_of(request).kafka), key=lambda each: each.last, reverse=True
    )
    return page(
        request,
        "alerts.html",
        open=[each for each in found if each.open],
        over=[each for each in found if not each.open][:50],
        spans=SPANS,
        muted=_muted,
        what_is_wrong=what_is_wrong,
        advice=advice,
        next_page=next_page,
        tells_somebody=backend_of(request).config.alerts.tells_somebody,
        said=request.query_params.get("said", ""),
    )


def next_page(trouble: Trouble) -> tuple[str, str]:
    """Return where to look at what is wrong, and how the link reads."""
    if is_of_letters(trouble):
        only = letters_link(domain=trouble.domain, stage=trouble.stage, cause=trouble.cause)
        return only, "See the dead letters"
    if trouble.cause in _TARGET_CAUSES:
        return "/sinks", "See the sinks"
    return "/", "See what waits for whom"


def _muted(trouble: Trouble) -> bool:
    return trouble.muted_until > now()


async def act_on_alert(request: Request) -> Response:
    form = await ordered(request)
    group, span = form.get("group", ""), form.get("span", "")
    unmuting = form.get("action") == "unmute"
    if not unmuting and span not in SPANS:
        raise HTTPException(400, "choose for how long nobody is to be told")
    action: Action = "unmute" if unmuting else "mute"
    await note(request, action, group=group, **({} if unmuting else {"span": span}))
    until = datetime.now(UTC) + (timedelta() if unmuting else SPANS[span])
    await mute_group(backend_of(request).kafka, group, from_datetime(until))
    return seen(f"/alerts?said={action}")


@dataclass(frozen=True, slots=True)
class Connection:
    """What to enter in HQ for one credential of a project space."""

    name: str
    lines: Sequence[Line]


async def connect(request: Request) -> Response:
    config = backend_of(request).config
    host = config.console.ingress_url or YOUR_HOST
    guides = {
        domain: [
            Connection(each.name, [address(domain, host), *login(each, _SECRET, host)])
            for each in config.credentials
            if domain in each.domains
        ]
        or [Connection("", [address(domain, host), Line("Authentication Type", "None")])]
        for domain in config.domains
    }
    open_to_all = not config.domains and config.ingress.unknown_domains != "refuse"
    return page(
        request,
        "connect.html",
        guides=guides,
        forwarders=FORWARDERS,
        connection_place=CONNECTION_PLACE,
        forwarding_place=FORWARDING_PLACE,
        host_known=bool(config.console.ingress_url),
        open_address=address("DOMAIN", host) if open_to_all else None,
    )
