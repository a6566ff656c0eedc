"""The dead letters that there are, and what has become of each (contract §7)."""

from base64 import b64decode
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from casewire.choosing import ANY, Choice, Kind, Subject
from casewire.reading import Place, read_topic
from schemas.dead_letter import DeadLetter, DeadLetterState
from schemas.errors import Cause
from schemas.settings import KafkaSettings
from streams.records import Record, Stored, header

LETTERS: Final = "dead-letters"
STATES: Final = "dead-letter-state"

Status: TypeAlias = Literal["open", "replayed", "discarded"]

#: By the first word of a value's schema.
_KINDS: Final[Mapping[str, Kind]] = {
    "case": "case",
    "form": "form",
    "app": "app",
    "user": "user",
    "location": "location",
    "custom": "custom",
}
#: HQ's headers that only one kind of forwarder sends (protocol.md §1.1).
_KINDS_OF_HEADERS: Final[Mapping[str, Kind]] = {
    "server-modified-on": "case",
    "received-on": "form",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What dead letters of one cause have in common."""

    domain: str
    stage: str
    cause: Cause
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter, without the record in it. `key` and `place` are where it lies itself."""

    id: str
    key: bytes
    place: Place
    captured_id: str
    group: Group
    kind: Kind
    subject: str
    captured_at: str
    failed_at: str
    attempts: int
    explanation: str
    state: DeadLetterState | None = None

    @property
    def status(self) -> Status:
        return "open" if self.state is None else self.state.status


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which dead letters are meant: any of `ids` (a letter's, or a captured event's), and all else.

    Empty means open.
    """

    ids: Sequence[str] = ()
    choice: Choice = ANY
    stage: str = ""
    cause: str = ""
    path: str | None = None

    @property
    def narrows(self) -> bool:
        """Whether anything was chosen."""
        return self != Wanted()

    def takes(self, letter: Letter, original: Stored) -> bool:
        group = letter.group
        return (
            (not self.ids or letter.id in self.ids or letter.captured_id in self.ids)
            and self.stage in ("", group.stage)
            and self.cause in ("", group.cause)
            and self.path in (None, group.path)
            and self.choice.takes(self._subject(letter, original))
        )

    def _subject(self, letter: Letter, original: Stored) -> Subject:
        """Say what a letter is about: of a body that was never read, the ids that are in it."""
        body = original.value or b""
        ids = {letter.subject}
        ids |= {each for each in (self.choice.case, self.choice.form) if each.encode() in body}
        return Subject(
            domain=letter.group.domain,
            kind=letter.kind,
            cases=frozenset(ids),
            forms=frozenset(ids),
            time=letter.captured_at,
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """The letters of a group. `latest` is the id of the last one; times are those of failing."""

    group: Group
    explanation: str
    count: int
    first: str
    last: str
    latest: str


async def find_letters(kafka: KafkaSettings, wanted: Wanted) -> Sequence[Letter]:
    """Return the letters that are meant, in the order in which their events were captured.

    Of letters with one id only the last counts: work that a crash has done twice made the others,
    or a replay that failed again.
    """
    found: dict[str, Letter] = {}
    async for record, value in read_letters(kafka):
        letter = letter_of(record, value)
        if wanted.takes(letter, original_of(value)):
            found[letter.id] = letter
    letters = await with_states(kafka, found.values())
    return sorted(letters, key=attrgetter("captured_id", "id"))


async def with_states(kafka: KafkaSettings, letters: Iterable[Letter]) -> Sequence[Letter]:
    """Return the letters with what was decided on each."""
    states = {record.key: record.value async for record in read_topic(kafka, STATES)}
    return [_with_state(letter, states.get(letter.id.encode())) for letter in letters]


async def read_letters(
    kafka: KafkaSettings, since: Mapping[int, int] = MappingProxyType({})
) -> AsyncIterator[tuple[Record, DeadLetter]]:
    """Yield each record on `casewire.dead-letters`, and what it says. `since`: see read_topic."""
    async for record in read_topic(kafka, LETTERS, since=since):
        yield record, DeadLetter.from_json(record.value or b"")


def letter_of(record: Record, value: DeadLetter) -> Letter:
    """Return the letter in a record."""
    original = original_of(value)
    return Letter(
        id=header(record.headers, "ce_id") or f"{record.partition}/{record.offset}",
        key=record.key or b"",
        place=(record.partition, record.offset),
        captured_id=value.captured_id,
        group=Group(domain=value.domain, stage=value.stage, cause=value.cause, path=value.path),
        kind=_kind(original),
        subject=header(original.headers, "ce_subject") or "",
        captured_at=header(original.headers, "ce_time") or value.failed_at,
        failed_at=value.failed_at,
        attempts=value.attempts,
        explanation=value.explanation,
    )


def original_of(letter: DeadLetter) -> Stored:
    """Return the record that failed. Its value is None if it had none, or is too long for this."""
    original = letter.original
    return Stored(
        original["topic"],
        _decoded(original["key"]),
        _decoded(original["value"]),
        [(name, b64decode(text)) for name, text in original["headers"]],
        original["partition"],
        original["offset"],
    )


def tallies(letters: Iterable[Letter]) -> Sequence[Tally]:
    """Return the letters by group, the largest group first."""
    groups: dict[Group, list[Letter]] = {}
    for letter in letters:
        groups.setdefault(letter.group, []).append(letter)
    return sorted(
        (_tally(group, each) for group, each in groups.items()),
        key=lambda tally: (-tally.count, tally.first),
    )


def _tally(group: Group, letters: Sequence[Letter]) -> Tally:
    in_time = sorted(letters, key=attrgetter("failed_at"))
    last = in_time[-1]
    return Tally(
        group, last.explanation, len(letters), in_time[0].failed_at, last.failed_at, last.id
    )


def _with_state(letter: Letter, value: bytes | None) -> Letter:
    state = DeadLetterState.from_json(value) if value is not None else None
    if state is None or state.offset < letter.place[1]:
        return letter
    return replace(letter, state=state)


def _kind(original: Stored) -> Kind:
    schema = header(original.headers, "casewire-schema") or ""
    if schema.startswith("form-stub"):
        return "stub"
    if schema:
        return _KINDS.get(schema.partition("/")[0].partition("-")[0], "")
    names = [name for name, _ in original.headers if name in _KINDS_OF_HEADERS]
    return _KINDS_OF_HEADERS[names[0]] if names else ""


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
