"""Dead letters: by cause, one cause's, one; repaired, replayed, discarded."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from casewire.choosing import Choice
from casewire.console.backend import backend_of, begin, decider, note, page
from casewire.console.gate import Form, posted
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


async def letters(request: Request) -> Response:
    found = await find_letters(backend_of(request).kafka, Wanted())
    open_ones = [letter for letter in found if letter.status == "open"]
    return page(
        request,
        "letters.html",
        tallies=tallies(open_ones),
        open=len(open_ones),
        closed=len(found) - len(open_ones),
        link=group_link,
    )


def group_link(group: Group) -> str:
    """Return the address of a group's page; none of its keys is a value of the data."""
    return f"/dead-letters/group?{urlencode(asdict(group))}"


async def group(request: Request) -> Response:
    keys = _keys(request.query_params)
    found = await find_letters(backend_of(request).kafka, _of_group(keys))
    open_ones = [letter for letter in found if letter.status == "open"]
    start = max(0, int(_digits(request.query_params.get("from", ""))))
    return page(
        request,
        "group.html",
        keys=keys,
        letters=open_ones[start : start + _ON_A_PAGE],
        open=len(open_ones),
        closed=[letter for letter in found if letter.status != "open"][:_ON_A_PAGE],
        before=_page_link(keys, start - _ON_A_PAGE) if start > 0 else "",
        after=_page_link(keys, start + _ON_A_PAGE) if start + _ON_A_PAGE < len(open_ones) else "",
        letter_link=letter_link,
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
    form = await posted(request)
    keys = _keys(form)
    if not (keys["stage"] and keys["cause"]):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "this names no group of dead letters")
    back = f"/dead-letters/group?{urlencode(keys)}"
    return await _act(request, form, _of_group(keys), back, keys)


async def letter(request: Request) -> Response:
    return await _letter_page(request, revealed=False)


async def act_on_letter(request: Request) -> Response:
    form = await posted(request)
    letter_id = request.path_params["letter_id"]
    if form.get("action") == "reveal":
        await note(request, "reveal a dead letter", letter=letter_id)
        return await _letter_page(request, revealed=True)
    back = f"/dead-letters/letters/{path(letter_id)}"
    return await _act(request, form, Wanted(ids=[letter_id]), back, {"letter": letter_id})


async def _letter_page(request: Request, *, revealed: bool) -> Response:
    try:
        found = await whole_letters(backend_of(request).kafka, request.path_params["letter_id"])
    except ConfigError as error:
        raise HTTPException(HTTPStatus.NOT_FOUND, str(error)) from error
    head, value, original = found[-1]
    body = original.value or b"" if isinstance(original, Stored) else None
    return page(
        request,
        "letter.html",
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


async def _act(
    request: Request, form: Form, wanted: Wanted, back: str, about: Mapping[str, str]
) -> Response:
    action = form.get("action", "")
    reason = form.get("reason", "").strip()
    if action == "discard":
        if not reason:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "say why they are to be discarded")
        order = Order(by=decider(request), reason=reason)
    elif action == "replay":
        mending = _mending(form)
        if mending is not None and mending.body is not None and not wanted.ids:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "a whole body is for one letter only")
        order = Order(by=decider(request), reason=reason, mending=mending)
    else:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "say what to do")
    found = await find_letters(backend_of(request).kafka, wanted)
    chosen = [each for each in found if each.status == "open"]
    noted: Action = "discard dead letters" if action == "discard" else "replay dead letters"
    await note(request, noted, count=len(chosen), **about)
    title = f"{action.capitalize()} of {count(len(chosen))} dead letter{'s' * (len(chosen) != 1)}"
    return await begin(request, title, back, _job(request, action, chosen, order))


def _mending(form: Form) -> Mending | None:
    """Return the repair that a form asks for. Raises HTTPException.

    Browsers send each end of a line as CR LF; bodies have LF.
    """
    patch = form.get("patch", "").strip()
    body = form.get("body", "").replace("\r\n", "\n")
    if patch and body.strip():
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, "a patch and a whole body do not go together; give one of them"
        )
    if body.strip():
        return Mending(None, body.encode())
    try:
        return patch_of(patch.encode(), "the repair") if patch else None
    except ConfigError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error


def _job(request: Request, action: str, chosen: Sequence[Letter], order: Order) -> Job:
    kafka = backend_of(request).kafka

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
            work.failed = f"{count(len(refused))} stay open"
            work.shown = [f"{each.id}: {why}" for each, why in refused[:_SHOWN_REFUSALS]]

    return discard if action == "discard" else replay
