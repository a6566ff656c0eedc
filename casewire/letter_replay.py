"""Dead letters go back into the stage that failed, or are discarded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import orjson

from casewire.dead_letters import (
    LETTERS,
    STATES,
    Letter,
    Wanted,
    find_letters,
    original_of,
    read_letters,
)
from casewire.mending import Mending
from casewire.reading import in_order, read_record, read_topic
from casewire.replay_writer import ReplayWriter, replay_writer, state_headers
from schemas.body import unpacked
from schemas.claim import CLAIM
from schemas.dead_letter import Closed, DeadLetter, DeadLetterState, Repair
from schemas.envelope import Captured
from schemas.errors import ConfigError, InvalidEventError
from schemas.settings import KafkaSettings
from schemas.times import now
from streams.bodies import Bodies
from streams.decode import STAGE as DECODE, claim_of, decode
from streams.records import Out, Record, Stored, captured_id
from streams.replays import REPLAYS, again, earliest_ms

_STATE_TYPE = "casewire.dead-letter-state"
_STATE_SCHEMA = "dead-letter-state/1"
#: Letters whose replay is confirmed before they are marked as replayed.
_AT_ONCE = 500
#: Headers that say how a body was sent, not what a repaired one is.
_OF_THE_BODY = frozenset({CLAIM, "content-encoding", "content-length"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Who decides, why, and what is done to each body before."""

    by: str
    reason: str = ""
    mending: Mending | None = None

    def state(self, letter: Letter, status: Closed) -> Out:
        """Return the record that closes a letter."""
        at = now()
        repair: Repair | None = self.mending.kept if self.mending else None
        value = DeadLetterState(
            status=status,
            offset=letter.place[1],
            by=self.by,
            at=at,
            reason=self.reason,
            repair=repair,
        )
        headers = state_headers(letter.id, _STATE_TYPE, _STATE_SCHEMA, at)
        return Out(letter.id.encode(), value.to_json(), headers)


async def replay_letters(
    kafka: KafkaSettings,
    letters: Sequence[Letter],
    order: Order,
    progress: Callable[[object], None],
) -> Sequence[tuple[Letter, str]]:
    """Replay letters in their order, and close them; return those that cannot be, and why.

    A letter is closed when Kafka has its replay: after a crash it may be replayed twice, but never
    be closed without.
    """
    refused: list[tuple[Letter, str]] = []
    sent: list[Letter] = []
    by_place = {letter.place: letter for letter in letters}
    async with replay_writer(kafka) as writer:
        async for record in in_order(read_topic(kafka, LETTERS), list(by_place)):
            letter = by_place[record.partition, record.offset]
            value = DeadLetter.from_json(record.value or b"")
            try:
                await writer.send(REPLAYS, await _replay(kafka, value, order.mending))
            except InvalidEventError as error:
                refused.append((letter, str(error)))
            else:
                sent.append(letter)
            progress(letter)
            if len(sent) >= _AT_ONCE:
                await _close(writer, sent, order)
        await _close(writer, sent, order)
    return refused


async def discard_letters(kafka: KafkaSettings, letters: Sequence[Letter], order: Order) -> None:
    """Close letters without processing them again."""
    async with replay_writer(kafka) as writer:
        for letter in letters:
            await writer.send(STATES, order.state(letter, "discarded"))


async def _close(writer: ReplayWriter, sent: list[Letter], order: Order) -> None:
    await writer.settle()
    for letter in sent:
        await writer.send(STATES, order.state(letter, "replayed"))
    sent.clear()


async def _replay(kafka: KafkaSettings, letter: DeadLetter, mending: Mending | None) -> Out:
    """Return the record for `replays`. Raises InvalidEventError if there can be none."""
    record = await whole_original(kafka, letter)
    if mending is not None:
        mended = mending.mended(await _body(kafka, record, letter.stage))
        headers = [item for item in record.headers if item[0] not in _OF_THE_BODY]
        record = replace(record, value=mended, headers=headers)
    return again(record, _key(record, letter, mending), letter.stage, letter.attempts + 1)


async def whole_original(kafka: KafkaSettings, letter: DeadLetter) -> Stored:
    """Return the record that failed, from its topic if it is too long to be in the letter.

    Raises InvalidEventError if it is not kept there any more.
    """
    kept = original_of(letter)
    if kept.value is not None or not letter.original["value_bytes"]:
        return kept
    found = await read_record(kafka, kept.topic, (kept.partition, kept.offset))
    if found is None or captured_id(found) != letter.captured_id:
        raise InvalidEventError(
            "too_large",
            f"its body was kept on {kept.topic} only, and is deleted there; give it by --body",
        )
    return replace(kept, value=found.value)


async def _body(kafka: KafkaSettings, record: Stored, stage: str) -> bytes:
    """Return what a patch is for: a captured body is unpacked, and fetched if it is in pieces."""
    if stage != DECODE:
        return record.value or b""
    claim = claim_of(record)
    body = record.value
    if claim is not None:
        body = await Bodies(kafka).fetch(captured_id(record), claim, earliest_ms(record))
    return unpacked(Captured.from_record(body, record.headers))


def _key(record: Record, letter: DeadLetter, mending: Mending | None) -> bytes:
    """Return the key on `replays`: by it the order of a case's or form's events is kept.

    Raises InvalidEventError if what was repaired would be a dead letter again.
    """
    if letter.stage != DECODE:
        return record.key or b""
    try:
        if record.value is not None:
            return decode(record).out.key
    except InvalidEventError:
        if mending is not None:
            raise
    return f"{letter.domain}/{letter.captured_id}".encode()


async def whole_letters(
    kafka: KafkaSettings, wanted: str
) -> Sequence[tuple[Letter, DeadLetter, Stored | InvalidEventError]]:
    """Return the letter of an id, or those of a captured event, with the records that failed.

    A record that is not kept any more is the error that says so. Raises ConfigError if there is no
    such letter.
    """
    letters = {letter.place: letter for letter in await find_letters(kafka, Wanted(ids=[wanted]))}
    if not letters:
        raise ConfigError(no_such_letter(wanted))
    found = []
    async for record, value in read_letters(kafka):
        letter = letters.get((record.partition, record.offset))
        if letter is not None:
            try:
                original: Stored | InvalidEventError = await whole_original(kafka, value)
            except InvalidEventError as error:
                original = error
            found.append((letter, value, original))
    return found


def no_such_letter(wanted: str) -> str:
    """Return what to tell who named a dead letter that is none."""
    return f"there is no dead letter {wanted}; casewire dead-letters list --each lists their ids"


def readable(body: bytes | None) -> str:
    """Return a body for a person to read: JSON indented, all else as it is."""
    try:
        return orjson.dumps(orjson.loads(body or b""), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        return (body or b"").decode(errors="replace")
