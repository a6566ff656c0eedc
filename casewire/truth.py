"""What the state of every case must be in the end, and how what is held differs from it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal, Self, TypeAlias

import orjson

from schemas.times import canonical
from schemas.values import Json

Comparable: TypeAlias = Literal["json", "xml", "xml_v1"]

_KNOWN: Final = ("case_name", "case_type", "owner_id", "external_id", "date_opened")
_TIMES: Final = ("date_closed", "date_modified", "server_date_modified")
#: The fields of a state that the body it came from can say, by that body's format.
_FIELDS: Final[Mapping[Comparable, tuple[str, ...]]] = {
    "xml_v1": ("user_id", "closed", "date_modified", "server_date_modified", "properties"),
    "xml": ("user_id", "closed", "date_modified", "server_date_modified", "properties", "indices"),
    "json": ("user_id", "closed", *_TIMES, "xform_ids", "properties", "indices"),
}


@dataclass(frozen=True, slots=True)
class TrueCase:
    """A case as HQ holds it in the end.

    `state` is the case as HQ's JSON gives it (protocol.md §6.4). `comparable` is the format in
    which HQ forwarded it last: what that cannot say is not compared.
    """

    comparable: Comparable
    deleted: bool
    state: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The truth of a simulated project.

    `cases` is by case id. `decidable`: contract §5 leads to this state in any order of arrival.
    `changes`, `requests` and `broken` count what happened, what was made to be sent by kind
    (repetitions left out), and the dead letters that are deserved by cause.
    """

    domain: str
    seed: int
    ends: str
    decidable: bool
    cases: Mapping[str, TrueCase]
    changes: Mapping[str, int]
    requests: Mapping[str, int]
    broken: Mapping[str, int]

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)

    @classmethod
    def from_json(cls, value: bytes) -> Self:
        """Parse what `to_json` wrote. Raises ValueError, KeyError or TypeError for others."""
        fields = orjson.loads(value)
        cases = {case_id: TrueCase(**case) for case_id, case in fields.pop("cases").items()}
        return cls(cases=cases, **fields)


def compare(truth: Truth, states: Iterable[bytes]) -> list[str]:
    """Return how the held states differ from the truth, a sentence each; empty if they agree.

    `states` are values of `casewire.case-state`; the last one of a case counts, and those of
    other domains are left out. Compared are, for a case that is gone, that it is `deleted` and
    since when; for another, what its last format says (`_FIELDS`), with blank known properties
    (`external_id` is absent in XML when blank) left out, removed indices left out, times in
    canonical form, and `date_opened` as its day if it came as XML.
    """
    held = {}
    for value in states:
        state = orjson.loads(value)
        if state["domain"] == truth.domain:
            held[state["case_id"]] = state
    differences = [
        f"case {case_id}: not in the truth" for case_id in held if case_id not in truth.cases
    ]
    for case_id, true in truth.cases.items():
        if case_id not in held:
            differences.append(f"case {case_id}: missing")
        else:
            differences.extend(f"case {case_id}: {text}" for text in _unlike(true, held[case_id]))
    return differences


def _unlike(true: TrueCase, state: Mapping[str, Json]) -> Iterator[str]:
    if bool(state["deleted"]) != true.deleted:
        yield f"deleted is {state['deleted']}, not {true.deleted}"
        return
    fields = ("server_date_modified",) if true.deleted else _FIELDS[true.comparable]
    wanted = _canonical(true.state, fields, true.comparable)
    for field, value in _canonical(state, fields, true.comparable).items():
        if value != wanted[field]:
            yield f"{field} is {value!r}, not {wanted[field]!r}"


def _canonical(
    state: Mapping[str, Json], fields: Iterable[str], comparable: Comparable
) -> dict[str, Json]:
    return {field: _canonical_field(field, state.get(field), comparable) for field in fields}


def _canonical_field(field: str, value: Json, comparable: Comparable) -> Json:
    if field in _TIMES:
        return value and canonical(value)
    if field == "properties":
        return _canonical_properties(value or {}, comparable)
    if field == "indices":
        return {name: index for name, index in (value or {}).items() if index["case_id"]}
    return value


def _canonical_properties(
    properties: Mapping[str, Json], comparable: Comparable
) -> dict[str, Json]:
    kept = {name: value for name, value in properties.items() if value or name not in _KNOWN}
    if comparable != "json" and "date_opened" in kept:
        kept["date_opened"] = kept["date_opened"][:10]
    return kept
