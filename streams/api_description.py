"""The OpenAPI description of the state API, written once as data."""

from collections.abc import Mapping, Sequence
from typing import Final

from schemas.values import Json

PATH: Final = "/openapi.json"


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _refused(description: str) -> Json:
    return _json(description, _ref("Error"))


def _parameter(name: str, where: str, schema: Json) -> Json:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


_TEXT: Final[Json] = {"type": "string"}
_TIME: Final[Json] = {"type": "string", "format": "date-time"}
_DOMAIN: Final = _parameter("domain", "path", _TEXT)
_CASE: Final = _parameter("case_id", "path", _TEXT)
_WRONG: Final = _refused("A parameter is wrong; the text says how to write it.")
_UNAUTHORIZED: Final = _refused("The token is missing or wrong.")
_UNKNOWN: Final = _refused("Nobody knows it, or nobody knew it then.")
_GONE: Final = _json("It was before what is kept of this case.", _ref("Gone"))
_NOT_NOW: Final = {
    **_refused("Partitions change hands, or something is being made anew: ask again."),
    "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
}


def _place(summary: str, parameters: Sequence[Json], answers: Mapping[str, Json]) -> Json:
    always = {"401": _UNAUTHORIZED, "404": _UNKNOWN, "503": _NOT_NOW}
    return {
        "get": {"summary": summary, "parameters": parameters, "responses": {**answers, **always}}
    }


DOCUMENT: Final[Json] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Casewire state API",
        "version": "1",
        "description": "Latest states, a case's past and its story, from any streams worker.",
    },
    "security": [{"token": []}],
    "paths": {
        "/api/v1/cases/{domain}/{case_id}": _place(
            "The latest state of a case, or what was held at a moment.",
            [_DOMAIN, _CASE, _parameter("at", "query", _TIME)],
            {"200": _json("The state.", _ref("Held")), "400": _WRONG, "410": _GONE},
        ),
        "/api/v1/cases/{domain}/{case_id}/history": _place(
            "A page of a case's story, oldest first.",
            [
                _DOMAIN,
                _CASE,
                _parameter("after", "query", _TEXT),
                _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 1000}),
            ],
            {"200": _json("The page.", _ref("Story")), "400": _WRONG},
        ),
        "/api/v1/forms/{domain}/{form_id}": _place(
            "The latest version of a form.",
            [_DOMAIN, _parameter("form_id", "path", _TEXT)],
            {"200": _json("The state.", _ref("Held"))},
        ),
    },
    "components": {
        "schemas": {
            "Error": _object(error=_TEXT),
            "Gone": _object(error=_TEXT, oldest=_TIME),
            "Held": _object(
                at={"type": ["string", "null"], "format": "date-time"},
                captured_at=_TIME,
                state={"type": "object", "description": "As on case-state or form-state."},
            ),
            "Story": _object(
                domain=_TEXT,
                case_id=_TEXT,
                complete={"type": "boolean"},
                events={"type": "array", "items": _ref("Event")},
                next={"type": ["string", "null"]},
            ),
            "Event": _object(
                id=_TEXT,
                captured_id=_TEXT,
                captured_at=_TIME,
                kind={"enum": ["snapshot", "block"]},
                outcome={"enum": ["applied", "stale", "duplicate", "dead", None]},
                form_ids={"type": "array", "items": _TEXT},
                version={"type": ["integer", "null"]},
                doubtful={"type": ["boolean", "null"]},
                differences={"type": ["array", "null"], "items": _ref("Difference")},
            ),
            "Difference": _object(name=_TEXT, old={}, new={}),
        },
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
}
