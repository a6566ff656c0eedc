"""Which events `casewire replay` chooses, and that they are sent to `casewire.replays` in order."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from casewire.choosing import Choice, Kind, Subject
from casewire.reading import Place, in_order, offsets_since, read_topic
from casewire.replay_writer import replay_writer
from schemas.envelope import Headers
from schemas.errors import InvalidEventError
from schemas.settings import KafkaSettings
from schemas.times import to_microseconds
from schemas.topics import DAY_MS
from streams.bodies import Bodies
from streams.decode import Decoded, claim_of, decode
from streams.delivery import SinkRecord
from streams.fence import version_of
from streams.records import captured_id, header
from streams.replays import REPLAYS, again, earliest_ms

CAPTURED: Final = "captured"
#: By the (short) name of a typed event's topic.
_KINDS: Final[Mapping[str, Kind]] = {
    "cases": "case",
    "forms": "form",
    "form-stubs": "stub",
    "app-changes": "app",
    "users": "user",
    "locations": "location",
    "custom": "custom",
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Records of a topic (short name), in the order in which their events were captured.

    `keys` are theirs on `replays`. `unread` counts what was captured and cannot be decoded: dead
    letters, which are replayed by themselves.
    """

    topic: str
    places: Sequence[Place]
    keys: Mapping[Place, bytes]
    since: Mapping[int, int] = field(default_factory=dict)
    unread: int = 0

    def records(self, kafka: KafkaSettings) -> AsyncIterator[SinkRecord]:
        """Yield the records in their order."""
        return in_order(read_topic(kafka, self.topic, since=self.since), self.places)


async def choose_captured(kafka: KafkaSettings, choice: Choice) -> Chosen:
    """Return the captured events that are meant."""
    since: Mapping[int, int] = {}
    if choice.since:
        # The time is an ingress's, which may be wrong, and the broker's may be days later (spool).
        earliest = to_microseconds(choice.since) // 1000 - DAY_MS
        since = await offsets_since(kafka, CAPTURED, max(0, earliest))
    found: dict[str, Place] = {}
    keys: dict[Place, bytes] = {}
    unread = 0
    async for record in read_topic(kafka, CAPTURED, since=since):
        if not choice.takes_envelope(_text(record, "casewire-domain"), _text(record, "ce_time")):
            continue
        try:
            decoded = await decoded_again(kafka, record)
        except InvalidEventError:
            unread += _may_be_about(record, choice)
            continue
        if choice.takes(_subject_of(record, decoded)):
            place = (record.partition, record.offset)
            found[captured_id(record)] = place  # one that was captured twice is replayed once
            keys[place] = decoded.out.key
    return Chosen(CAPTURED, [found[each] for each in sorted(found)], keys, since, unread)


async def choose_states(kafka: KafkaSettings, topic: str, choice: Choice) -> Chosen:
    """Return the latest states on a compacted topic that are meant, or the events on another."""
    latest: dict[bytes | str, tuple[str, int, Place]] = {}
    keys: dict[Place, bytes] = {}
    compacted = topic.endswith("-state")
    async for record in read_topic(kafka, topic):
        version, place = version_of(record.headers), (record.partition, record.offset)
        of = record.key or b"" if compacted else _text(record, "ce_id")
        held = latest.get(of)
        if held is None or version >= held[1]:
            if held is not None:
                keys.pop(held[2], None)
            latest[of] = (_text(record, "ce_id"), version, place)
            if choice.takes(_subject_of_state(record)):
                keys[place] = record.key or b""
    places = [place for _, _, place in sorted(latest.values()) if place in keys]
    return Chosen(topic, places, keys)


async def replay_chosen(
    kafka: KafkaSettings, chosen: Chosen, target: str, progress: Callable[[object], None]
) -> None:
    """Send what was chosen to `replays`, for a stage. Raises UnavailableError."""
    async with replay_writer(kafka) as writer:
        async for record in chosen.records(kafka):
            key = chosen.keys[record.partition, record.offset]
            await writer.send(REPLAYS, again(record, key, target))
            progress(record)


async def decoded_again(kafka: KafkaSettings, record: SinkRecord) -> Decoded:
    """Decode a captured record here. Raises InvalidEventError."""
    claim = claim_of(record)
    if claim is None:
        return decode(record)
    body = await Bodies(kafka).fetch(captured_id(record), claim, earliest_ms(record))
    return decode(record, body)


def _may_be_about(record: SinkRecord, choice: Choice) -> bool:
    """Whether a body that cannot be read has the ids in it that are wanted."""
    body = record.value or b""
    return choice.case.encode() in body and choice.form.encode() in body


def _subject_of(record: SinkRecord, decoded: Decoded) -> Subject:
    kind = _KINDS[decoded.topic]
    about = _id_in(decoded.out.key)
    cases = {_id_in(change.key) for change in decoded.changes}
    return Subject(
        domain=_text(record, "casewire-domain"),
        kind=kind,
        cases=frozenset({about} if kind == "case" else cases),
        forms=frozenset({about} if kind in ("form", "stub") else _forms(decoded.out.value)),
        time=_text(record, "ce_time"),
    )


def _subject_of_state(record: SinkRecord) -> Subject:
    kind: Kind = "form" if record.topic.endswith(("forms", "form-state")) else "case"
    key = record.key or b""
    about = frozenset({_id_in(key)})
    return Subject(
        domain=key.decode().partition("/")[0],
        kind=kind,
        cases=about if kind == "case" else frozenset(),
        forms=about if kind == "form" else frozenset(_forms(record.value)),
        time=_text(record, "ce_time"),
    )


def _forms(value: bytes | None) -> Sequence[str]:
    """Return the ids of the forms that a case's event or state says it was made of."""
    case = orjson.loads(value) if value is not None else {}
    return case.get("xform_ids") or () if isinstance(case, dict) else ()


def _id_in(key: bytes) -> str:
    return key.decode().partition("/")[2]


def _text(record: SinkRecord, name: str) -> str:
    headers: Headers = record.headers
    return header(headers, name) or ""
