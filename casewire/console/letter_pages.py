"""Dead letters: by cause, one cause's, one; repaired, replayed, discarded."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from casewire.choosing import Choice
from casewire.console.backend import backend_of, begin, decider, note, page
from casewire.console.gate import Form, ordered
from casewire.console.metrics import Action
from casewire.console.wording import count, path
from casewire.console.works import Job, Work
from casewire.dead_letters import Group, Letter, Wanted, find_letters, tallies
from casewire.letter_replay import (
    Order,
    discard_letters,
    readable,
    replay_letters,
    whole_letters,
)
from casewire.mending import Mending, patch_of
from schemas.dead_letter import DeadLetter
from schemas.errors import ConfigError
from streams.records import Stored

_ON_A_PAGE: Final = 200
_SHOWN_REFUSALS: Final = 50
_GROUP_KEYS: Final = ("domain", "stage", "cause", "path")
#: What the page can be narrowed by, as people call it.
_NAMES: Final = {"domain": "project space", "stage": "stage", "cause": "cause"}


@dataclass(frozen=True, slots=True)
class Decided:
    """What somebody decided on dead letters."""

    discards: bool
    order: Order


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with a form, and what was typed; nothing while nobody has sent it."""

    why: str = ""
    patch: str = ""
    body: str = ""
    reason: str = ""

    @property
    def status(self) -> int:
        return HTTPStatus.BAD_REQUEST if self.why else HTTPStatus.OK


async def letters(request: Request) -> Response:
    query = request.query_params
    only = {key: query[key] for key in _NAMES if query.get(key)}
    wanted = Wanted(
        choice=Choice(domain=only.get("domain", "")),
        stage=only.get("stage", ""),
        cause=only.get("cause", ""),
    )
    found = await find_letters(backend_of(request).kafka, wanted)
    open_ones = [letter for letter in found if letter.status == "open"]
    return page(
        request,
        "letters.html",
        tallies=tallies(open_ones),
        open=len(open_ones),
        closed=len(found) - len(open_ones),
        link=group_link,
        only={_NAMES[key]: value for key, value in only.items()},
    )


def group_link(group: Group) -> str:
    """Return the address of a group's page; none of its keys is a value of the data."""
    return f"/dead-letters/group?{urlencode(asdict(group))}"


async def group(request: Request) -> Response:
    return await _group_page(request, _keys(request.query_params), Wrong())


async def _group_page(request: Request, keys: Mapping[str, str], wrong: Wrong) -> Response:
    found = await find_letters(backend_of(request).kafka, _of_group(keys))
    open_ones = [letter for letter in found if letter.status == "open"]
    start = int(_digits(request.query_params.get("from", "")))
    return page(
        request,
        "group.html",
        wrong.status,
        keys=keys,
        letters=open_ones[start : start + _ON_A_PAGE],
        open=len(open_ones),
        closed=[letter for letter in found if letter.status != "open"][:_ON_A_PAGE],
        before=_page_link(keys, start - _ON_A_PAGE) if start > 0 else "",
        after=_page_link(keys, start + _ON_A_PAGE) if start + _ON_A_PAGE < len(open_ones) else "",
        letter_link=letter_link,
        wrong=wrong,
    )


def letter_link(letter: Letter) -> str:
    return f"/dead-letters/letters/{path(letter.id)}"


def _page_link(keys: Mapping[str, str], start: int) -> str:
    return f"/dead-letters/group?{urlencode({**keys, 'from': max(0, start)})}"


def _digits(text: str) -> str:
    return text if text.isascii() and text.isdigit() and len(text) < 10 else "0"


def _keys(values: Mapping[str, str]) -> Mapping[str, str]:
    return {key: values.get(key, "") for key in _GROUP_KEYS}


def _of_group(keys: Mapping[str, str]) -> Wanted:
    return Wanted(
        choice=Choice(domain=keys["domain"]),
        stage=keys["stage"],
        cause=keys["cause"],
        path=keys["path"],
    )


async def act_on_group(request: Request) -> Response:
    form = await ordered(request)
    keys = _keys(form)
    if not (keys["stage"] and keys["cause"]):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "this names no group of dead letters")
    if form.get("body"):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "a whole body is for one letter only")
    order = _order(request, form)
    if isinstance(order, Wrong):
        return await _group_page(request, keys, order)
    back = f"/dead-letters/group?{urlencode(keys)}"
    return await _act(request, order, _of_group(keys), back, keys)


async def letter(request: Request) -> Response:
    return await _letter_page(request, Wrong(), revealed=False)


async def act_on_letter(request: Request) -> Response:
    form = await ordered(request)
    letter_id = request.path_params["letter_id"]
    if form.get("action") == "reveal":
        await note(request, "reveal a dead letter", letter=letter_id)
        return await _letter_page(request, Wrong(), revealed=True)
    order = _order(request, form)
    if isinstance(order, Wrong):
        return await _letter_page(request, order, revealed=False)
    back = f"/dead-letters/letters/{path(letter_id)}"
    return await _act(request, order, Wanted(ids=[letter_id]), back, {"letter": letter_id})


async def _letter_page(request: Request, wrong: Wrong, *, revealed: bool) -> Response:
    try:
        found = await whole_letters(backend_of(request).kafka, request.path_params["letter_id"])
    except ConfigError as error:
        raise HTTPException(HTTPStatus.NOT_FOUND, str(error)) from error
    head, value, original = found[-1]
    body = original.value or b"" if isinstance(original, Stored) else None
    return page(
        request,
        "letter.html",
        wrong.status,
        letter=head,
        value=value,
        group_link=group_link(head.group),
        place=f"{value.original['topic']}/{value.original['partition']}"
        f" at {value.original['offset']}",
        missing="" if isinstance(original, Stored) else str(original),
        size=value.original["value_bytes"],
        revealed=revealed,
        headers=_headers(original) if revealed and isinstance(original, Stored) else (),
        body=readable(body) if revealed and body is not None else "",
        draft=_draft(body) if revealed else "",
        about=_about(value, head),
        wrong=wrong,
    )


def _about(value: DeadLetter, head: Letter) -> str:
    """Return the page of the case or form that a letter is about, if that is known."""
    pages = {"case": "cases", "form": "forms"}
    if head.subject and head.kind in pages:
        return f"/{pages[head.kind]}/{path(value.domain)}/{path(head.subject)}"
    return ""


def _headers(original: Stored) -> Sequence[tuple[str, str]]:
    return [(name, value.decode(errors="replace")) for name, value in original.headers]


def _draft(body: bytes | None) -> str:
    """Return the body to begin a repair with; none if a text field would change it."""
    try:
        return (body or b"").decode()
    except UnicodeDecodeError:
        return ""


def _order(request: Request, form: Form) -> Decided | Wrong:
    """Return what a form says is to be done.

    Browsers send each end of a line as CR LF; bodies have LF.
    """
    action, reason = form.get("action"), form.get("reason", "").strip()
    patch, body = form.get("patch", "").strip(), form.get("body", "").replace("\r\n", "\n")
    if action == "discard":
        if not reason:
            return Wrong("say why they are to be discarded")
        return Decided(discards=True, order=Order(by=decider(request), reason=reason))
    if action != "replay":
        return Wrong("say what is to be done")
    if patch and body.strip():
        why = "a patch and a whole body do not go together; give one of them"
        return Wrong(why, patch, body, reason)
    try:
        mending = patch_of(patch.encode(), "the patch") if patch else None
    except ConfigError as error:
        return Wrong(str(error), patch, body, reason)
    if body.strip():
        mending = Mending(None, body.encode())
    return Decided(discards=False, order=Order(by=decider(request), reason=reason, mending=mending))


async def _act(
    request: Request, decided: Decided, wanted: Wanted, back: str, about: Mapping[str, str]
) -> Response:
    found = await find_letters(backend_of(request).kafka, wanted)
    chosen = [each for each in found if each.status == "open"]
    action: Action = "discard dead letters" if decided.discards else "replay dead letters"
    await note(request, action, count=len(chosen), **about)
    number = f"{count(len(chosen))} dead letter{'s' * (len(chosen) != 1)}"
    title = f"{'Discard' if decided.discards else 'Replay'} of {number}"
    return await begin(request, title, back, _job(request, decided, chosen))


def _job(request: Request, decided: Decided, chosen: Sequence[Letter]) -> Job:
    kafka, order = backend_of(request).kafka, decided.order

    async def discard(work: Work) -> None:
        work.total = len(chosen)
        await discard_letters(kafka, chosen, order)
        work.done = len(chosen)
        work.said = [f"discarded: {count(len(chosen))}"]

    async def replay(work: Work) -> None:
        work.total = len(chosen)
        refused = await replay_letters(kafka, chosen, order, work.progress)
        work.said = [f"sent to be processed again: {count(len(chosen) - len(refused))}"]
        if refused:
            work.failed = f"{count(len(refused))} {'stays' if len(refused) == 1 else 'stay'} open"
            work.shown = [f"{each.id}: {why}" for each, why in refused[:_SHOWN_REFUSALS]]

    return discard if decided.discards else replay
