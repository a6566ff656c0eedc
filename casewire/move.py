"""Moves all that is on one broker to another cluster, where every record gets the offset it had.

What is committed, the ledger, dead letters and the tables on disk all speak of offsets: where these
stay, nothing has to be translated. It also tells where to go on after a crash: at the end of the
target's partition. What is gone before the first record, or was compacted away between others, is
filled; fillers at the beginning are deleted again, those in between say once more what the record
behind them says, which changes nothing for whoever reads it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from casewire.progress import committed_offsets, end_offsets, first_offsets
from casewire.reading import consuming, read_record
from casewire.topics import admin, create_topics, partition_numbers, unanswered, wanted_config
from kafka_clients.login import client_options
from schemas.envelope import Headers
from schemas.errors import ConfigError, UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import LARGE_RECORD, MEBIBYTE, TOPICS

Say = Callable[[str], None]

_UNCONFIRMED: Final = 2000
_POLL_MS: Final = 200
#: A partition whose records are all gone, but not its offsets: nobody's key, which is no case's.
_NOTHING: Final = b"casewire.moved/nothing"
#: A member that ended with its broker is one until its session has ended too.
_SESSION_SECONDS: Final = 45.0
#: How long a request of a run that was killed may still be on its way.
_SETTLED_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Filled:
    """What is to be appended; `timestamp` in milliseconds, None is now."""

    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A partition: where the source begins and ends (exclusive), and where the target ends."""

    topic: str
    partition: int
    start: int
    end: int
    held: int

    @property
    def place(self) -> Any:
        return TopicPartition(self.topic, self.partition)


async def filled(
    records: AsyncIterator[Any], span: Span, *, compacted: bool
) -> AsyncIterator[Filled]:
    """Yield what makes the offsets from `span.held` to `span.end`, one each, in order.

    `records` are the source's from the later of `span.held` and `span.start` on.
    """
    offset = span.held
    last = Filled(key=_NOTHING) if compacted else Filled(value=b"")
    if not compacted:
        for _ in range(offset, span.start):
            yield last
        offset = max(offset, span.start)
    async for record in records:
        last = Filled(record.key, record.value, list(record.headers), record.timestamp)
        for _ in range(offset, record.offset + 1):
            yield last
        offset = max(offset, record.offset + 1)
    for _ in range(offset, span.end):
        yield last


async def move(
    source: KafkaSettings, target: KafkaSettings, say: Say, *, patience: float = _SESSION_SECONDS
) -> None:
    """Copy topics and what groups have committed; whoever was interrupted goes on where it ended.

    All roles must be stopped; `patience` are the seconds to wait until their groups know it.
    Raises ConfigError or UnavailableError; nothing is lost by that.
    """
    require_alike(source, target)
    await _require_quiet(source, patience)
    spans = await _spans(source, target)
    await _set_configs(target, {"message.timestamp.type": "CreateTime"})
    try:
        if left := [span for span in spans if span.held < span.end]:
            await _copy_all(source, target, left, say)
    except KafkaError as error:
        raise await unanswered(target, error) from error
    await _forget_fillers(target, spans)
    await _set_configs(target, {})
    say(f"{await _commit_all(source, target)} groups go on where they were")
    await _verify(source, target, spans)


def require_alike(source: KafkaSettings, target: KafkaSettings) -> None:
    """Raise ConfigError if records would not find their places on the target."""
    if source.bootstrap_servers == target.bootstrap_servers:
        raise ConfigError(f"{target.bootstrap_servers} is where everything is; name another one")
    for key in ("topic_prefix", "partitions"):
        ours, theirs = getattr(source, key), getattr(target, key)
        if ours != theirs:
            raise ConfigError(
                f"[kafka] {key} is {theirs} there and {ours} here; take the same, since keys, "
                "groups and offsets keep their places"
            )


async def _require_quiet(kafka: KafkaSettings, patience: float) -> None:
    deadline = time.monotonic() + patience
    async with admin(kafka) as client:
        for group in await _groups(client, kafka):
            while await _has_members(client, group):
                if time.monotonic() >= deadline:
                    raise UnavailableError(f"{group} is at work; stop all roles, and move then")
                await asyncio.sleep(1)


async def _has_members(client: Any, group: str) -> bool:
    (answer,) = await client.describe_consumer_groups([group])
    return any(described[5] for described in answer.groups)


async def _groups(client: Any, kafka: KafkaSettings) -> Sequence[str]:
    found = await client.list_consumer_groups()
    return sorted(name for name, _ in found if name.startswith(kafka.group("")))


async def _spans(source: KafkaSettings, target: KafkaSettings) -> Sequence[Span]:
    """Return all partitions, with the topics created; nothing else has been changed by then.

    Raises UnavailableError if the target holds something else.
    """
    names = [source.topic(name) for name in TOPICS]
    if len(await partition_numbers(source, names)) != len(TOPICS) * source.partitions:
        raise UnavailableError(
            f"topics have other numbers of partitions than [kafka] partitions = "
            f"{source.partitions}; correct what casewire topics check says"
        )
    await create_topics(target)
    await _settled(target, names)
    starts, ends = await first_offsets(source, names), await end_offsets(source, names)
    held = await end_offsets(target, names)
    spans = [Span(*place, starts[place], end, held.get(place, 0)) for place, end in ends.items()]
    for span in spans:
        await _require_ours(source, target, span)
    return spans


async def _settled(kafka: KafkaSettings, names: Sequence[str]) -> None:
    """Return when the topics have stopped to grow: a run that was killed may have gone on."""
    ends = await end_offsets(kafka, names)
    while any(ends.values()):
        await asyncio.sleep(_SETTLED_SECONDS)
        before, ends = ends, await end_offsets(kafka, names)
        if ends == before:
            return


async def _require_ours(source: KafkaSettings, target: KafkaSettings, span: Span) -> None:
    """Raise UnavailableError unless the target's partition is the beginning of the source's."""
    if span.held <= span.start:
        return
    where = (span.partition, span.held - 1)
    there = await read_record(target, span.topic, where)
    here = await read_record(source, span.topic, where)
    differ = there and here and (there.key, there.value) != (here.key, here.value)
    if span.held > span.end or differ:
        raise UnavailableError(
            f"{span.topic}/{span.partition} at {target.bootstrap_servers} holds other events: "
            "it has been used since it was moved, or is not ours; nothing was changed"
        )


async def _copy_all(
    source: KafkaSettings, target: KafkaSettings, spans: Sequence[Span], say: Say
) -> None:
    producer = AIOKafkaProducer(
        **client_options(target),
        acks="all",
        enable_idempotence=True,
        compression_type="zstd",
        max_batch_size=MEBIBYTE,
        max_request_size=2 * LARGE_RECORD,
    )
    try:
        await producer.start()
        async with consuming(source) as consumer:
            for span in spans:
                await _copy(consumer, producer, span, source)
                say(f"copied {span.topic}/{span.partition}, {span.end - span.held:,} offsets")
    finally:
        await producer.stop()


async def _copy(consumer: Any, producer: Any, span: Span, source: KafkaSettings) -> None:
    compacted = TOPICS[span.topic.removeprefix(source.topic_prefix)].compacted
    expected, sends = span.held, []
    async for each in filled(_records(consumer, span), span, compacted=compacted):
        sends.append(
            await producer.send(
                span.topic,
                each.value,
                each.key,
                partition=span.partition,
                timestamp_ms=each.timestamp,
                headers=list(each.headers),
            )
        )
        if len(sends) == _UNCONFIRMED:
            expected = await _confirmed(sends, expected, span)
            sends = []
    await _confirmed(sends, expected, span)


async def _confirmed(sends: Sequence[Any], expected: int, span: Span) -> int:
    """Return the next offset, when all are stored where they should be."""
    for offset, sent in enumerate(await asyncio.gather(*sends), expected):
        if sent.offset != offset:
            raise UnavailableError(
                f"somebody else writes to {span.topic}/{span.partition} of the target; have its "
                "topics deleted, stop whoever writes, and move again"
            )
    return expected + len(sends)


async def _records(consumer: Any, span: Span) -> AsyncIterator[Any]:
    place = span.place
    consumer.assign([place])
    consumer.seek(place, max(span.held, span.start))
    while await consumer.position(place) < span.end:
        for record in (await consumer.getmany(place, timeout_ms=_POLL_MS)).get(place, ()):
            if record.offset < span.end:
                yield record


async def _forget_fillers(kafka: KafkaSettings, spans: Sequence[Span]) -> None:
    """Delete what stands for records that the source has deleted."""
    prefix = kafka.topic_prefix
    deleted = {
        span.place: RecordsToDelete(before_offset=span.start)
        for span in spans
        if span.start and not TOPICS[span.topic.removeprefix(prefix)].compacted
    }
    if deleted:
        async with admin(kafka) as client:
            await client.delete_records(deleted)


async def _set_configs(kafka: KafkaSettings, more: Mapping[str, str]) -> None:
    """Set the configuration of all topics; `more` stands over what is wanted."""
    async with admin(kafka) as client:
        answers = await client.alter_configs(
            [
                ConfigResource(
                    ConfigResourceType.TOPIC,
                    kafka.topic(name),
                    configs={**wanted_config(kafka, name), **more},
                )
                for name in TOPICS
            ]
        )
        for answer in answers:
            for code, message, *_ in answer.resources:
                if code:
                    raise for_code(code)(message)


async def _commit_all(source: KafkaSettings, target: KafkaSettings) -> int:
    """Commit on the target what groups have committed on the source; never less than is there."""
    committed = {}
    async with admin(source) as client:
        for group in await _groups(client, source):
            committed[group] = await committed_offsets(client, group)
    for group, offsets in committed.items():
        await _commit(target, group, offsets)
    return len(committed)


async def _commit(kafka: KafkaSettings, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
    places = {TopicPartition(*place): offset for place, offset in offsets.items() if offset >= 0}
    consumer = AIOKafkaConsumer(**client_options(kafka), group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(list(places))
        there = {place: await consumer.committed(place) or 0 for place in places}
        await consumer.commit({place: max(there[place], at) for place, at in places.items()})
    finally:
        await consumer.stop()


async def _verify(source: KafkaSettings, target: KafkaSettings, spans: Sequence[Span]) -> None:
    names = [source.topic(name) for name in TOPICS]
    ends = {(span.topic, span.partition): span.end for span in spans}
    for kafka in (source, target):
        found = await end_offsets(kafka, names)
        for place, end in ends.items():
            if found[place] != end:
                raise UnavailableError(
                    f"{place[0]}/{place[1]} at {kafka.bootstrap_servers} ends at {found[place]} "
                    f"instead of {end}: somebody writes; stop all roles, and move again"
                )
