"""The console as an application: its pages, who may see them, and what a browser may do with them.

Way in: ROUTES. Every POST is a form of ours: its handler begins with `gate.ordered`, which refuses
all others, and who may only look.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from aiokafka.errors import KafkaError
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from casewire.console import case_pages, letter_pages, logging_in, overview_pages
from casewire.console.backend import STATIC_FOLDER, Backend, backend_of, page
from casewire.console.gate import LOGIN, Gate
from casewire.console.metrics import REQUESTS
from casewire.topics import unanswered
from schemas.errors import CasewireError, QueryError

#: Of our own files only, nothing inline, in nobody's frame.
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
#: A page may hold what nobody else may see; the static files' addresses name their content.
_CACHED: Final = "public, max-age=31536000, immutable"
_NOT_CACHED: Final = "no-store"


async def work(request: Request) -> Response:
    found = backend_of(request).works.find(request.path_params["work_id"])
    if found is None:
        raise HTTPException(
            HTTPStatus.NOT_FOUND,
            "this console knows nothing of it: it was begun by another one, or before this one "
            "started. What was done is on the page that it is about",
        )
    return page(request, "work.html", work=found)


ROUTES: Final[Sequence[Route | Mount]] = (
    Route(LOGIN, logging_in.show_login, methods=["GET"]),
    Route(LOGIN, logging_in.log_in, methods=["POST"]),
    Route("/logout", logging_in.log_out, methods=["POST"]),
    Route("/", overview_pages.overview, methods=["GET"]),
    Route("/dead-letters", letter_pages.letters, methods=["GET"]),
    Route("/dead-letters/group", letter_pages.group, methods=["GET"]),
    Route("/dead-letters/group", letter_pages.act_on_group, methods=["POST"]),
    Route("/dead-letters/letters/{letter_id:path}", letter_pages.letter, methods=["GET"]),
    Route("/dead-letters/letters/{letter_id:path}", letter_pages.act_on_letter, methods=["POST"]),
    Route("/find", case_pages.find, methods=["GET"]),
    Route("/cases/{domain}/{id:path}", case_pages.case, methods=["GET"]),
    Route("/cases/{domain}/{id:path}", case_pages.act_on_case, methods=["POST"]),
    Route("/forms/{domain}/{id:path}", case_pages.form, methods=["GET"]),
    Route("/forms/{domain}/{id:path}", case_pages.act_on_form, methods=["POST"]),
    Route("/sinks", overview_pages.sinks, methods=["GET"]),
    Route("/sinks/{name}", overview_pages.sink, methods=["GET"]),
    Route("/sinks/{name}", case_pages.replay_into_sink, methods=["POST"]),
    Route("/alerts", overview_pages.alerts, methods=["GET"]),
    Route("/alerts", overview_pages.act_on_alert, methods=["POST"]),
    Route("/connect", overview_pages.connect, methods=["GET"]),
    Route("/works/{work_id}", work, methods=["GET"]),
    Mount("/static", StaticFiles(directory=STATIC_FOLDER)),
)


def create_app(backend: Backend) -> ASGIApp:
    """Return the application."""
    app = Starlette(
        routes=ROUTES,
        exception_handlers={
            HTTPException: _refused,
            CasewireError: _failed,
            KafkaError: _kafka_failed,
            Exception: _unexpected,
        },
    )
    app.state.backend = backend
    # Around all of it: what fails unexpectedly is answered by Starlette's outermost layer.
    return Guarded(Gate(app, backend.door))


class Guarded:
    """The layer that tells browsers what these pages may do, and counts answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                static = scope["path"].startswith("/static/") and message["status"] == HTTPStatus.OK
                headers["cache-control"] = _CACHED if static else _NOT_CACHED
                REQUESTS.labels(f"{message['status'] // 100}xx").inc()
            await send(message)

        await self._app(scope, receive, sending)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    return _error_page(request, error.status_code, error.detail)


async def _failed(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, QueryError) else HTTPStatus.SERVICE_UNAVAILABLE
    return _error_page(request, status, str(error))


async def _kafka_failed(request: Request, error: Exception) -> Response:
    return await _failed(request, await unanswered(backend_of(request).kafka, error))


async def _unexpected(request: Request, error: Exception) -> Response:
    said = f"an unexpected {type(error).__name__}; the console's log says more"
    return _error_page(request, HTTPStatus.INTERNAL_SERVER_ERROR, said)


def _error_page(request: Request, status: int, said: str) -> Response:
    return page(request, "error.html", status, status=status, said=said)
