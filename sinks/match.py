"""Which events a sink wants: by JSON fragment, as OpenFn's message filters do (contract §8; pure).

An event matches a fragment if it contains it: objects by key, arrays by element, scalars by
equality. Beside the event's own keys a match may hold `any` and `all` (lists of matches), `not` (a
match), and the shorthands `kind`, `domain`, `case_type`, `xmlns` and `app_id`: a text, or a list of
texts of which one must be equal.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from schemas.case import CaseState
from schemas.form import FormState
from schemas.values import Json
from sinks.base import Message

_SHORTHANDS: Final[Mapping[str, Callable[[Message], Json]]] = {
    "kind": lambda message: message.kind,
    "domain": lambda message: message.domain,
    "case_type": lambda message: _inner(message, "properties", "case_type"),
    "xmlns": lambda message: _inner(message, "form", "@xmlns"),
    "app_id": lambda message: message.value.get("app_id"),
}
_LASTING: Final = ("kind", "domain", "case_type")
_COMBINERS: Final = ("any", "all", "not")
_KEYS: Final = (
    *_SHORTHANDS, *_COMBINERS, *dict.fromkeys((*CaseState.names(), *FormState.names())),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """What a sink takes: `match`, without what a set of `exclusions` (by name) matches.

    Of what was captured before `since` (canonical) only what is replayed to the sink.
    """

    match: Mapping[str, Json]
    exclusions: Mapping[str, Mapping[str, Json]]
    since: str = ""

    def rule_against(self, message: Message) -> str:
        """Return the rule by which a message is left out, empty if it is wanted.

        What is gone has lost what it said: it is judged by what it still is (kind, project space,
        case type), so that its row goes too.
        """
        if self.since and not message.replayed and message.captured_at < self.since:
            return "since"
        match = self.match
        if message.value.get("deleted") is True:
            lasting = [key for key in _LASTING if _SHORTHANDS[key](message)]
            match = {key: match[key] for key in lasting if key in match}
        if match and refusal(match, message):
            return "match"
        for name, match in self.exclusions.items():
            if not refusal(match, message):
                return name
        return ""


def refusal(match: Mapping[str, Json], message: Message) -> str:
    """Return the part of the match that the message does not meet, empty if it meets all."""
    for key, wanted in match.items():
        if key in _COMBINERS:
            refused = _combined(key, wanted, message)
        elif key in _SHORTHANDS:
            options = wanted if isinstance(wanted, list) else [wanted]
            refused = "" if _SHORTHANDS[key](message) in options else key
        else:
            refused = _missing({key: wanted}, message.value, "")
        if refused:
            return refused
    return ""


def _combined(key: str, wanted: Json, message: Message) -> str:
    if key == "not":
        return "" if refusal(wanted, message) else "not"
    reasons = [refusal(each, message) for each in wanted]
    if key == "all":
        return next((f"all.{reason}" for reason in reasons if reason), "")
    return "" if "" in reasons else f"any ({', '.join(reasons)})"


def _missing(fragment: Json, value: Json, path: str) -> str:
    """Return the path of the first part of the fragment that the value does not contain."""
    if isinstance(fragment, Mapping):
        if not isinstance(value, Mapping):
            return path
        for key, inner in fragment.items():
            place = f"{path}.{key}" if path else key
            if key not in value:
                return place
            if missing := _missing(inner, value[key], place):
                return missing
        return ""
    if isinstance(fragment, list):
        contained = isinstance(value, list) and all(
            any(not _missing(inner, item, "x") for item in value) for inner in fragment
        )
        return "" if contained else path
    same_type = isinstance(fragment, bool) == isinstance(value, bool)
    return "" if same_type and fragment == value else path


def problems(match: Json, path: str = "match") -> Iterator[str]:
    """Yield what is wrong with a match that somebody wrote, with the place of each."""
    if not isinstance(match, Mapping):
        yield f"{path}: must be a table"
        return
    for key, wanted in match.items():
        yield from _key_problems(key, wanted, f"{path}.{key}")


def _key_problems(key: str, wanted: Json, path: str) -> Iterator[str]:
    if key in ("any", "all"):
        if not isinstance(wanted, list) or not wanted:
            yield f"{path}: must be a list of tables"
            return
        for number, each in enumerate(wanted):
            yield from problems(each, f"{path}[{number}]")
    elif key == "not":
        yield from problems(wanted, path)
    elif key in _SHORTHANDS:
        options: Sequence[Json] = wanted if isinstance(wanted, list) else [wanted]
        if not options or not all(isinstance(option, str) for option in options):
            yield f"{path}: must be a text, or a list of texts"
    elif key not in _KEYS:
        near = difflib.get_close_matches(key, _KEYS, 1, 0)
        yield f"{path}: no case or form has this key; did you mean {near[0]}?"


def _inner(message: Message, outer: str, key: str) -> Json:
    value = message.value.get(outer)
    return value.get(key) if isinstance(value, Mapping) else None
