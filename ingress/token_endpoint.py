"""`POST /api/v1/token` and `POST /oauth/token`: what HQ calls before each payload (protocol.md §2).

A grant of type `password` is judged by user name and password, whatever client it names; one of
type `client_credentials` by the client's id and secret, in the header or in the body. `scope` is
accepted and means nothing. There is no refresh token: with one HQ would keep access tokens, and a
refusal of a kept one loses the event.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, get_args
from urllib.parse import parse_qsl

import orjson
import structlog
from starlette.types import Receive, Scope, Send

from ingress import answers
from ingress.access import Access, Proven, Unjudged, client_network
from ingress.answers import Answer, respond
from ingress.auth import BASIC, Grant, Pairs, client_pairs
from ingress.limits import Budget
from ingress.request import Body, BodyTooLargeError, ClientGoneError, InFlightFullError
from ingress.tokens import TOKEN_SECONDS

PATHS: Final = ("/api/v1/token", "/oauth/token")

_MAX_BYTES: Final = 16 * 1024
_MAX_AT_ONCE: Final = 2000
_JSON: Final = b"application/json"
_NO_STORE: Final = (b"cache-control", b"no-store")

_log = structlog.get_logger(__name__)

_ONLY_POST: Final = Answer(405, "Ask for a token by POST.\n", [(b"allow", b"POST")])


class TokenEndpoint:
    """Gives out tokens, as a plain ASGI class: HQ asks for one before each payload."""

    def __init__(self, access: Access, answered: Callable[[Answer], None]) -> None:
        self._access = access
        self._answered = answered
        self._budget = Budget(_MAX_AT_ONCE, _MAX_AT_ONCE * _MAX_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = Body(receive, _MAX_BYTES, self._budget)
        try:
            answer = await self._answer(scope, body)
        except ClientGoneError:
            return
        except asyncio.CancelledError:
            answer = _error(503, "temporarily_unavailable", "the ingress is shutting down")
        except BodyTooLargeError:
            await body.skip()
            answer = _error(400, "invalid_request", "the request is too large")
        except InFlightFullError:
            answer = answers.IN_FLIGHT_FULL
        except Exception as error:  # noqa: BLE001 - HQ must hear 503, whatever it is
            _log.error("a request for a token failed", error=type(error).__name__)
            answer = _error(503, "temporarily_unavailable", "the ingress failed")
        finally:
            body.release()
        self._answered(answer)
        await respond(send, answer)

    async def _answer(self, scope: Scope, body: Body) -> Answer:
        if scope["method"] != "POST":
            return _ONLY_POST
        form = _form(await body.read())
        grant = form.get("grant_type", "")
        if not grant:
            return _error(400, "invalid_request", "grant_type is missing")
        for known in get_args(Grant):
            if grant == known:
                pairs = _pairs(known, form, scope["headers"])
                return await self._grant(known, pairs, client_network(scope))
        return _error(400, "unsupported_grant_type", "use client_credentials or password")

    async def _grant(self, grant: Grant, pairs: Pairs, client: str) -> Answer:
        verdict, token = await self._access.token(grant, pairs, client)
        if isinstance(verdict, Proven):
            content = {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_SECONDS}
            return Answer(200, orjson.dumps(content).decode(), [_NO_STORE], _JSON)
        if isinstance(verdict, Unjudged):
            return _error(503, "temporarily_unavailable", verdict)
        code = "invalid_client" if grant == "client_credentials" else "invalid_grant"
        return _error(401, code, "the credentials are missing or wrong", challenge=True)


def _form(body: bytes) -> Mapping[str, str]:
    """Return the fields of a form; bytes that are no UTF-8 come as surrogates, as HTTP's do."""
    text = body.decode("utf-8", "surrogateescape")
    return dict(parse_qsl(text, keep_blank_values=True, errors="surrogateescape"))


def _pairs(grant: Grant, form: Mapping[str, str], headers: Sequence[tuple[bytes, bytes]]) -> Pairs:
    if grant == "password":
        return _pair(form, "username", "password")
    for name, value in headers:
        if name == b"authorization":
            return client_pairs(value)
    return _pair(form, "client_id", "client_secret")


def _pair(form: Mapping[str, str], user: str, secret: str) -> Pairs:
    if user not in form or secret not in form:
        return []
    return [(_bytes(form[user]), _bytes(form[secret]))]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _error(status: int, code: str, text: str, *, challenge: bool = False) -> Answer:
    content = orjson.dumps({"error": code, "error_description": str(text)}).decode()
    headers = [_NO_STORE, (b"www-authenticate", BASIC)] if challenge else [_NO_STORE]
    return Answer(status, content, headers, _JSON)
