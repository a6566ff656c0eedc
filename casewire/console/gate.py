"""Who asks: every page but the one to log in is for those who are known."""

import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, quote

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from casewire.console.people import People
from casewire.console.sessions import (
    Session,
    csrf_token,
    new_id,
    read_session,
    sign_session,
)
from casewire.console.settings import ConsoleSettings
from ingress.access import client_network
from ingress.proxies import Proxies
from ingress.tokens import Key, Keys
from schemas.errors import ConfigError

LOGIN: Final = "/login"
CSRF_FIELD: Final = "csrf"
#: A body of 8 MiB is the largest that a topic takes; escaped it may be three times as long.
_LARGEST_FORM: Final = 24 * 1024 * 1024
_LARGEST_LOGIN: Final = 16 * 1024
_MOST_FIELDS: Final = 50
_STATIC: Final = "/static/"
_ID_LENGTH: Final = 32
_LONGEST_NAME: Final = 200
_FORM_TYPE: Final = "application/x-www-form-urlencoded"

Form: TypeAlias = Mapping[str, str]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who asks. `user` is empty for who is not known; `csrf` is what their forms must carry.

    `acts`: whether they may see values and act. `session` is None for who has not logged in here.
    `secure`: by https.
    """

    user: str
    acts: bool
    csrf: str
    client: str
    secure: bool
    visit: str
    session: Session | None = None


@dataclass(slots=True)
class Door:
    """Tells who asks, by the session's cookie or a proxy's header."""

    settings: ConsoleSettings
    people: People | None
    keys: Keys
    clock: Callable[[], float] = time.time
    proxies: Proxies = field(init=False)

    def __post_init__(self) -> None:
        self.proxies = Proxies(self.settings.trusted_proxies, "[console] trusted_proxies")

    @property
    def key(self) -> Key:
        assert self.keys.signing is not None, "keys were read"  # noqa: S101
        return self.keys.signing

    def visitor(self, connection: HTTPConnection) -> Visitor:
        peer = connection.scope.get("client")
        believed = self.proxies.believes(peer)
        scheme = (
            connection.headers.get("x-forwarded-proto", "") if believed else connection.url.scheme
        )
        secure = scheme == "https"
        client = self.proxies.client(peer, connection.scope["headers"])
        network = client_network({"client": client})
        visit = connection.cookies.get(_name("visit", secure=secure), "")
        if len(visit) != _ID_LENGTH or not visit.isalnum():
            visit = new_id()
        user = self._named(connection.headers) if believed else ""
        session = (
            None
            if user
            else self._session(connection.cookies.get(_name("session", secure=secure), ""))
        )
        if session is not None:
            user = session.user
        subject = session.id if session else f"{visit} {user}"
        return Visitor(
            user=user,
            acts=bool(user) and self.settings.may_act(user),
            csrf=csrf_token(self.key, subject),
            client=network,
            secure=secure,
            visit=visit,
            session=session,
        )

    def _named(self, headers: Headers) -> str:
        """Return whom a proxy that is believed names; nobody if it names several."""
        if not self.settings.trusted_user_header:
            return ""
        names = headers.getlist(self.settings.trusted_user_header)
        name = names[0].strip() if len(names) == 1 else ""
        return name if name.isprintable() and len(name) <= _LONGEST_NAME else ""

    def _session(self, cookie: str) -> Session | None:
        if self.people is None or not cookie:
            return None
        now = self.clock()
        session = read_session(self.keys, cookie, now)
        try:
            return session if session and self.people.holds(session, now) else None
        except ConfigError as error:
            _log.error("nobody can be known", reason=str(error))
            return None

    def let_in(self, response: Response, session: Session, visitor: Visitor) -> None:
        """Give a session to who has just logged in."""
        _set_cookie(response, "session", sign_session(self.key, session), visitor)

    def let_out(self, response: Response, visitor: Visitor) -> None:
        if self.people is not None and visitor.session is not None:
            self.people.end(visitor.session)
        response.delete_cookie(
            _name("session", secure=visitor.secure),
            secure=visitor.secure, httponly=True, samesite="strict",
        )  # fmt: skip


def _name(what: str, *, secure: bool) -> str:
    """Return a cookie's name; a browser takes one with the prefix from this very host only."""
    return f"{'__Host-' if secure else ''}casewire-console-{what}"


def _set_cookie(response: Response, what: str, value: str, visitor: Visitor) -> None:
    response.set_cookie(
        _name(what, secure=visitor.secure), value,
        secure=visitor.secure, httponly=True, samesite="strict",
    )  # fmt: skip


class Gate:
    """The layer that lets nobody pass who is not known."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        visitor = self._door.visitor(request)
        scope.setdefault("state", {})["visitor"] = visitor
        if scope["path"].startswith(_STATIC):
            await self._app(scope, receive, send)
            return
        remember = _remembering(send, visitor)
        if visitor.user or scope["path"] == LOGIN:
            await self._app(scope, receive, remember)
        else:
            await _to_login(request)(scope, receive, remember)


def _to_login(request: Request) -> Response:
    target = request.scope["raw_path"].decode("ascii", "replace")
    if request.url.query:
        target += f"?{request.url.query}"
    following = (
        f"?next={quote(target, safe='')}" if request.method == "GET" and target != "/" else ""
    )
    return RedirectResponse(LOGIN + following, HTTPStatus.SEE_OTHER)


def _remembering(send: Send, visitor: Visitor) -> Send:
    """Return a `send` that gives a visitor without a session the cookie that forms rely on."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and visitor.session is None:
            response = Response()
            _set_cookie(response, "visit", visitor.visit, visitor)
            MutableHeaders(scope=message).append("set-cookie", response.headers["set-cookie"])
        await send(message)

    return sending


def visitor_of(request: Request) -> Visitor:
    visitor: Visitor = request.state.visitor
    return visitor


async def posted(request: Request) -> Form:
    """Return the form that was sent; of a field that comes twice the last. Raises HTTPException.

    A form that does not carry its visitor's token was not made by our page.
    """
    visitor = visitor_of(request)
    if request.headers.get("content-type", "").partition(";")[0] != _FORM_TYPE:
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "only forms of these pages are taken"
        )
    body = await _read(request, _LARGEST_FORM if visitor.user else _LARGEST_LOGIN)
    try:
        form = dict(
            parse_qsl(
                body.decode("ascii"), keep_blank_values=True, errors="strict",
                max_num_fields=_MOST_FIELDS,
            )
        )  # fmt: skip
    except ValueError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "this is no form of these pages") from error
    sent = form.pop(CSRF_FIELD, "")
    if not hmac.compare_digest(sent.encode(), visitor.csrf.encode()):
        raise HTTPException(
            HTTPStatus.FORBIDDEN,
            "this form is not of your session, or of one that is over; nothing was done. "
            "Open the page again",
        )
    return form


async def ordered(request: Request) -> Form:
    """Return the form, as `posted` does, of who may see values and act. Raises HTTPException."""
    form = await posted(request)
    if not visitor_of(request).acts:
        raise HTTPException(
            HTTPStatus.FORBIDDEN,
            "you may look, and nothing was done; [console] operators names who may do this",
        )
    return form


async def _read(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "this is too long to be taken")
    return bytes(body)


def safe_next(target: str) -> str:
    """Return a path of ours to go to after the login, whatever was asked for."""
    ours = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if ours and not target.startswith(LOGIN) else "/"
