"""One case, one form: state, story, deliveries; and replaying one, or a project space."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from itertools import groupby
from operator import attrgetter
from typing import Final, Generic, TypeVar

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from casewire.case_deliveries import Delivered, Of, deliveries_of
from casewire.choosing import Choice
from casewire.config import Config
from casewire.console.backend import backend_of, begin, note, page, seen
from casewire.console.gate import Form, ordered
from casewire.console.wording import PLAIN, count, path, properties, text
from casewire.console.works import Job, Work
from casewire.replay_command import FATES, choose_replay, forecast_replay, sources_to_replay
from casewire.replaying import replay_chosen
from casewire.sink_config import no_such_sink, sources
from casewire.state_client import Happening, Held, Story, state_client
from schemas.errors import CasewireError
from schemas.form import FormState
from schemas.values import Json

#: What a button reveals beside single properties.
HISTORY: Final = "history"
_SHOWN_KEYS: Final = 50

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Change:
    """What an event changed of a case; of hidden values only that they changed."""

    name: str
    old: str
    new: str
    hidden: bool


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a case's story, with what it changed; None: nobody knows any more."""

    happening: Happening
    changes: Sequence[Change] | None


async def find(request: Request) -> Response:
    """Go to the page of what is looked for; without an id, ask for it."""
    query = request.query_params
    domain, wanted = query.get("domain", "").strip(), query.get("id", "").strip()
    of = "forms" if query.get("of") == "form" else "cases"
    if "/" in wanted and not domain:
        domain, _, wanted = wanted.partition("/")
    if domain and wanted:
        return seen(f"/{of}/{path(domain)}/{path(wanted)}")
    domains = list(backend_of(request).config.domains)
    asked = bool(query)
    return page(request, "find.html", domains=domains, domain=domain, id=wanted, of=of, asked=asked)


async def case(request: Request) -> Response:
    return await _case_page(request, "")


async def act_on_case(request: Request) -> Response:
    form = await ordered(request)
    domain, case_id = _key(request)
    if form.get("action") == "reveal":
        name = form.get("name", "")
        await note(request, "reveal a case", domain=domain, case=case_id, values=name)
        return await _case_page(request, name)
    back = f"/cases/{path(domain)}/{path(case_id)}"
    return await _replay(request, form, Choice(domain=domain, case=case_id), back)


async def form(request: Request) -> Response:
    return await _form_page(request, revealed=False)


async def act_on_form(request: Request) -> Response:
    form = await ordered(request)
    domain, form_id = _key(request)
    if form.get("action") == "reveal":
        await note(request, "reveal a form", domain=domain, form=form_id)
        return await _form_page(request, revealed=True)
    back = f"/forms/{path(domain)}/{path(form_id)}"
    return await _replay(request, form, Choice(domain=domain, form=form_id), back)


async def replay_into_sink(request: Request) -> Response:
    """Have the latest states of a project space written to a sink again."""
    form = await ordered(request)
    name = request.path_params["name"]
    domain = form.get("domain", "").strip()
    if not domain:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "name the project space")
    return await _replay(request, {**form, "sink": name}, Choice(domain=domain), f"/sinks/{name}")


def _key(request: Request) -> tuple[str, str]:
    return request.path_params["domain"], request.path_params["id"]


async def _case_page(request: Request, revealed: str) -> Response:
    domain, case_id = _key(request)

    async def asked() -> tuple[Held, Story]:
        async with state_client(backend_of(request).config) as client:
            return await client.case(domain, case_id), await client.story(domain, case_id)

    known, delivered = await asyncio.gather(
        _tried(asked()), _tried(_deliveries(request, f"{domain}/{case_id}", "case"))
    )
    state = known.found[0].case() if known.found else None
    events = known.found[1].events if known.found else ()
    return page(
        request,
        "case.html",
        domain=domain,
        id=case_id,
        state=state,
        captured_at=known.found[0].captured_at if known.found else "",
        missing=known.why,
        complete=known.found is None or known.found[1].complete,
        properties=list(properties(state.properties, {revealed})) if state else (),
        events=[_event(each, revealed=revealed == HISTORY) for each in reversed(events)],
        revealed=revealed,
        deliveries=_by_sink(delivered.found or ()),
        undelivered=delivered.why,
        sinks=list(backend_of(request).config.sinks),
    )


def _event(happening: Happening, *, revealed: bool) -> Event:
    if happening.differences is None:
        return Event(happening, None)
    changes = [
        Change(each.name, text(each.old), text(each.new), hidden=not revealed and _hides(each.name))
        for each in happening.differences
    ]
    return Event(happening, changes)


def _hides(name: str) -> bool:
    return name.startswith("properties.") and name.removeprefix("properties.") not in PLAIN


async def _form_page(request: Request, *, revealed: bool) -> Response:
    domain, form_id = _key(request)

    async def asked() -> Held:
        async with state_client(backend_of(request).config) as client:
            return await client.form(domain, form_id)

    known, delivered = await asyncio.gather(
        _tried(asked()), _tried(_deliveries(request, f"{domain}/{form_id}", "form"))
    )
    state = FormState.from_object(known.found.state) if known.found else None
    answers = {"form": state.form, "metadata": state.metadata} if state else {}
    return page(
        request,
        "form.html",
        domain=domain,
        id=form_id,
        state=state,
        captured_at=known.found.captured_at if known.found else "",
        missing=known.why,
        answers=_indented(answers) if revealed else "",
        revealed=revealed,
        deliveries=_by_sink(delivered.found or ()),
        undelivered=delivered.why,
        sinks=list(backend_of(request).config.sinks),
    )


def _indented(value: Json) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


@dataclass(frozen=True, slots=True)
class Tried(Generic[Found]):
    """What was found; or `why` not, and nothing."""

    found: Found | None
    why: str = ""


async def _tried(asking: Awaitable[Found]) -> Tried[Found]:
    try:
        return Tried(await asking)
    except CasewireError as error:
        return Tried(None, str(error))


async def _deliveries(request: Request, key: str, of: Of) -> Sequence[Delivered]:
    backend = backend_of(request)
    return await deliveries_of(backend.kafka, sources(backend.config.sinks), key, of)


def _by_sink(found: Sequence[Delivered]) -> Mapping[str, Sequence[Delivered]]:
    return {sink: list(each)[::-1] for sink, each in groupby(found, key=attrgetter("sink"))}


async def _replay(request: Request, form: Form, choice: Choice, back: str) -> Response:
    config = backend_of(request).config
    sink, action = form.get("sink", ""), form.get("action", "")
    if sink and sink not in config.sinks:
        raise HTTPException(HTTPStatus.NOT_FOUND, no_such_sink(config.sinks, sink))
    if action not in ("replay", "dry-run"):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "say what to do")
    one = choice.case or choice.form
    of = f"{choice.domain}/{one}" if one else choice.domain
    into = f" into {sink}" if sink else ""
    about = {key: value for key, value in asdict(choice).items() if value}
    if action == "dry-run":
        return await begin(
            request, f"Dry run of a replay of {of}{into}", back, _dry_run(config, choice, sink)
        )
    await note(request, "replay", **about, **({"sink": sink} if sink else {}))
    return await begin(request, f"Replay of {of}{into}", back, _replaying(config, choice, sink))


def _dry_run(config: Config, choice: Choice, sink: str) -> Job:
    async def job(work: Work) -> None:
        chosen = await choose_replay(config, choice, sources_to_replay(config, sink))
        found = await forecast_replay(config, chosen, sink)
        work.said = [f"{count(number)} {FATES[fate]}" for fate, number in found.counts.items()]
        told = (keys for fate, keys in found.keys.items() if fate != "same")
        work.shown = [key for keys in told for key in keys][:_SHOWN_KEYS]
        if not found.counts:
            work.said = ["there is nothing to replay"]

    return job


def _replaying(config: Config, choice: Choice, sink: str) -> Job:
    async def job(work: Work) -> None:
        chosen = await choose_replay(config, choice, sources_to_replay(config, sink))
        work.total = sum(len(each.places) for each in chosen)
        target = f"sink:{sink}" if sink else "decode"
        for each in chosen:
            await replay_chosen(config.cluster, each, target, work.progress)
        work.said = [f"events sent to be processed again: {count(work.total)}"]

    return job
