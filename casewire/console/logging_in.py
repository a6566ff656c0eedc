"""The page to log in, and the way out."""

import time
from http import HTTPStatus
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response

from casewire.console.backend import backend_of, page, seen
from casewire.console.gate import LOGIN, posted, safe_next, visitor_of
from casewire.console.metrics import LOGINS
from casewire.console.people import SECONDS_PER_ATTEMPT
from schemas.errors import ConfigError

_WRONG: Final = "The user name or the password is wrong."
_WRONG_TOKEN: Final = "This is not the token."  # noqa: S105 - a sentence
_TOO_MANY: Final = "Too many wrong ones came from this address; wait half a minute."
_NOBODY: Final = "Nobody can log in now: the console's log says why."
_HOUR: Final = 3600

_log = structlog.get_logger(__name__)


async def show_login(request: Request) -> Response:
    if visitor_of(request).user:
        return seen("/")
    return _login_page(request, request.query_params.get("next", "/"))


async def log_in(request: Request) -> Response:
    form = await posted(request)
    backend, visitor = backend_of(request), visitor_of(request)
    people, target = backend.door.people, safe_next(form.get("next", "/"))
    if people is None:
        return _login_page(request, target, HTTPStatus.FORBIDDEN)
    if not people.may_try(visitor.client, time.monotonic()):
        LOGINS.labels("too many").inc()
        answer = _login_page(request, target, HTTPStatus.TOO_MANY_REQUESTS, _TOO_MANY)
        answer.headers["retry-after"] = str(int(SECONDS_PER_ATTEMPT))
        return answer
    name = form.get("user", "").strip()
    try:
        stored = await people.login(name, form.get("password", ""), visitor.client)
    except ConfigError as error:
        _log.error("nobody can log in", reason=str(error))
        return _login_page(request, target, HTTPStatus.SERVICE_UNAVAILABLE, _NOBODY)
    if stored is None:
        LOGINS.labels("wrong").inc()
        await backend.audit.note("", "wrong password", client=visitor.client)
        wrong = _WRONG_TOKEN if people.by_token else _WRONG
        return _login_page(request, target, HTTPStatus.UNAUTHORIZED, wrong)
    hours = backend.config.console.session_hours
    session = people.session(name, stored, backend.door.clock() + hours * _HOUR)
    await backend.audit.note(session.user, "log in", client=visitor.client)
    LOGINS.labels("right").inc()
    answer = seen(target)
    backend.door.let_in(answer, session, visitor)
    return answer


async def log_out(request: Request) -> Response:
    await posted(request)
    backend, visitor = backend_of(request), visitor_of(request)
    await backend.audit.note(visitor.user, "log out")
    answer = seen(LOGIN)
    backend.door.let_out(answer, visitor)
    return answer


def _login_page(
    request: Request, target: str, status: int = HTTPStatus.OK, wrong: str = ""
) -> Response:
    people = backend_of(request).door.people
    return page(
        request,
        "login.html",
        status,
        by_proxy=people is None,
        by_token=people is not None and people.by_token,
        target=safe_next(target),
        wrong=wrong,
    )
