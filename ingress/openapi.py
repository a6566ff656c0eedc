"""The OpenAPI description of the public address, written once as data, and where it is read.

It says what contract §3 says; tests/hq/test_openapi.py holds the ingress to it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import orjson
from starlette.types import Receive, Scope, Send

from ingress import token_endpoint
from ingress.answers import Answer, respond
from ingress.request import PREFIX
from schemas.values import Json

PATH: Final = "/openapi.json"

_READERS: Final = ("GET", "HEAD")


class Description:
    """The endpoint that gives the description."""

    def __init__(self) -> None:
        text = orjson.dumps(DOCUMENT, option=orjson.OPT_INDENT_2).decode()
        allow = [(b"allow", ", ".join(_READERS).encode())]
        self._description = Answer(200, text, content_type=b"application/json")
        self._not_allowed = Answer(405, "This address is for reading.\n", allow)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        readable = scope["method"] in _READERS
        await respond(send, self._description if readable else self._not_allowed)


def _says(description: str) -> dict[str, Json]:
    """Return a response that is a sentence for people."""
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}


_CHALLENGED: Final[dict[str, Json]] = {
    "WWW-Authenticate": {
        "description": "One for each kind of credential that is accepted.",
        "required": True,
        "schema": {"type": "string"},
    }
}
_UNAUTHORIZED: Final[dict[str, Json]] = {
    **_says("The credentials are missing or certainly wrong. Final for CommCare HQ."),
    "headers": _CHALLENGED,
}
_UNAVAILABLE: Final = _says(
    "Not stored, for a reason that may pass, or because the project space is not known: the sender "
    "tries again."
)
_STORED: Final[dict[str, Json]] = {
    "description": "The event is durable.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Receipt"}}},
}
_STORING: Final[dict[str, Json]] = {
    "200": _STORED,
    "400": _says("The request is broken HTTP, or its headers are too large."),
    "401": _UNAUTHORIZED,
    "411": _says("Nothing says where the body ends."),
    "413": _says("The body is larger than max_body_bytes."),
    "503": _UNAVAILABLE,
}
_TESTING: Final[dict[str, Json]] = {
    "200": _says("The credentials are good. Nothing is stored."),
    "400": _says("The request is broken HTTP."),
    "401": _UNAUTHORIZED,
    "503": _UNAVAILABLE,
}
_BODY: Final[dict[str, Json]] = {
    "description": "Whatever is forwarded. It is stored byte for byte and not judged here.",
    "content": {
        "text/xml": {"schema": {"type": "string"}},
        "application/json": {"schema": {}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
_DOMAIN: Final[dict[str, Json]] = {
    "name": "domain",
    "in": "path",
    "required": True,
    "description": "The project space.",
    "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9.-]*$"},
}
_LABEL: Final[dict[str, Json]] = {
    "name": "label",
    "in": "path",
    "required": True,
    "description": "Names a custom forwarder.",
    "schema": {"type": "string", "pattern": "^[^/.][^/]*$"},
}
_OF_A_FORM: Final[dict[str, Json]] = {
    "name": "app_id",
    "in": "query",
    "description": "The application of a form.",
    "schema": {"type": "string"},
}


def _time(name: str, description: str) -> dict[str, Json]:
    return {
        "name": name,
        "in": "header",
        "description": description,
        "schema": {"type": "string", "format": "date-time"},
    }


_SENT: Final[list[Json]] = [
    _OF_A_FORM,
    _time("received-on", "When CommCare HQ received the form."),
    _time("server-modified-on", "When CommCare HQ last changed the case."),
]


def _place(name: str, parameters: Sequence[Json]) -> dict[str, Json]:
    """Return what can be done at one address; `name` is a suffix of the operations' ids."""
    place: dict[str, Json] = {"parameters": list(parameters)}
    for method in ("post", "put", "delete"):
        place[method] = {
            "operationId": f"{method}{name}",
            "summary": "Store what is forwarded.",
            "parameters": _SENT,
            "requestBody": _BODY,
            "responses": _STORING,
        }
    for method in ("get", "head"):
        place[method] = {
            "operationId": f"{method}{name}",
            "summary": "Test the connection, as CommCare HQ's button does.",
            "responses": _TESTING,
        }
    return place


_TOKEN_ERROR: Final[dict[str, Json]] = {
    "schema": {"$ref": "#/components/schemas/TokenError"},
}
_TOKEN_GRANT: Final[dict[str, Json]] = {
    "type": "object",
    "required": ["grant_type"],
    "properties": {
        "grant_type": {"enum": ["password", "client_credentials"]},
        **{
            name: {"type": "string"}
            for name in ("username", "password", "client_id", "client_secret", "scope")
        },
    },
}
_TOKEN: Final[dict[str, Json]] = {
    "post": {
        "summary": "Get a token, as Bearer and OAuth 2 connections do before each payload.",
        "security": [{}, {"basic": []}],
        "requestBody": {
            "required": True,
            "content": {"application/x-www-form-urlencoded": {"schema": _TOKEN_GRANT}},
        },
        "responses": {
            "200": {
                "description": "The credentials are good.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Token"}}},
            },
            "400": {
                "description": "The request is broken.",
                "content": {"application/json": _TOKEN_ERROR, "text/plain": {"schema": {}}},
            },
            "401": {
                "description": "The credentials are missing or certainly wrong.",
                "content": {"application/json": _TOKEN_ERROR},
                "headers": _CHALLENGED,
            },
            "503": {
                "description": "The credentials could not be judged now.",
                "content": {"application/json": _TOKEN_ERROR, "text/plain": {"schema": {}}},
            },
        },
    }
}

_SCHEMES: Final[dict[str, Json]] = {
    "basic": {"type": "http", "scheme": "basic"},
    "digest": {"type": "http", "scheme": "digest"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token of /api/v1/token."},
    "oauth2": {
        "type": "oauth2",
        "flows": {
            "clientCredentials": {"tokenUrl": "/oauth/token", "scopes": {}},
            "password": {"tokenUrl": "/oauth/token", "scopes": {}},
        },
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "Verbatim; the header's name is configurable.",
    },
}

DOCUMENT: Final[Mapping[str, Json]] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Casewire ingress",
        "version": "1",
        "description": (
            "Takes what CommCare HQ forwards. One address takes every kind of forwarder. There is "
            f"no 404 under {PREFIX}/, no 204 and no redirect, since each of them loses the event."
        ),
    },
    "security": [{}, *({name: []} for name in _SCHEMES)],
    "paths": {
        f"{PREFIX}/{{domain}}": _place("", [_DOMAIN]),
        f"{PREFIX}/{{domain}}/{{label}}": _place("Labelled", [_DOMAIN, _LABEL]),
        **dict.fromkeys(token_endpoint.PATHS, _TOKEN),
        PATH: {
            "get": {
                "operationId": "description",
                "summary": "This description.",
                "security": [],
                "responses": {
                    "200": {
                        "description": "An OpenAPI 3.1 document.",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    }
                },
            }
        },
    },
    "components": {
        "schemas": {
            "Receipt": {
                "type": "object",
                "required": ["id", "stored"],
                "additionalProperties": False,
                "properties": {
                    "id": {"type": "string", "format": "uuid"},
                    "stored": {"enum": ["kafka", "spool"]},
                },
            },
            "Token": {
                "type": "object",
                "required": ["access_token", "token_type", "expires_in"],
                "properties": {
                    "access_token": {"type": "string"},
                    "token_type": {"const": "Bearer"},
                    "expires_in": {"type": "integer", "minimum": 1},
                },
            },
            "TokenError": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {"type": "string"},
                    "error_description": {"type": "string"},
                },
            },
        },
        "securitySchemes": _SCHEMES,
    },
}
