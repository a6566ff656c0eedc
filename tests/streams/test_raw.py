"""Fetched records are read as aiokafka reads them, whichever way."""

from collections.abc import Mapping
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import (
    DefaultRecordBatch,
    DefaultRecordBatchBuilder,
    _DefaultRecordBatchPy,
)
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.structs import TopicPartition
from hypothesis import given, strategies as st

from schemas.envelope import Headers
from streams.batches.raw import Batches, HeaderBlock, RawRecords, Records, read_raw
from tests.kafka_tools import create_topics
from tests.servers import KafkaServer

PLACE = TopicPartition("t", 3)
CODECS = (
    DefaultRecordBatch.CODEC_NONE,
    DefaultRecordBatch.CODEC_GZIP,
    DefaultRecordBatch.CODEC_ZSTD,
)
#: Sizes on both sides of where a varint takes another byte.
texts = st.binary(max_size=80) | st.sampled_from([b"x" * n for n in (63, 64, 8191, 8192, 16384)])
header_lists = st.lists(st.tuples(st.text(max_size=70), st.none() | texts), max_size=70)
written = st.tuples(st.integers(0, 2**41), st.none() | texts, st.none() | texts, header_lists)


def batch_of(records: list[Any], codec: int = 0, holes: int = 1) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, 1, 0, 0, 10_000_000)
    for number, record in enumerate(records):
        assert builder.append(number * holes, *record)
    return bytes(builder.build())


def taken_by_us(data: bytes, position: int = 0) -> list[Any]:
    more: Any = ([], position, None, None, True, 0)
    return list(RawRecords(PLACE, Batches(data), *more))


def taken_as_tuples(data: bytes, position: int) -> list[Any]:
    more: Any = ([], position, None, None, True, 0)
    return list(Records(PLACE, MemoryRecords(data), *more))


def taken_by_aiokafka(data: bytes, position: int) -> list[Any]:
    more: Any = ([], position, None, None, True, 0)
    return list(fetcher.PartitionRecords(PLACE, MemoryRecords(data), *more))


def told(records: list[Any]) -> list[Any]:
    return [
        (r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, list(r.headers))
        for r in records
    ]


@given(
    records=st.lists(written, min_size=1, max_size=70),
    holes=st.integers(1, 200),
    codec=st.sampled_from(CODECS),
    position=st.integers(0, 300),
)
def test_we_read_what_aiokafka_reads(
    records: list[Any], holes: int, codec: int, position: int
) -> None:
    """Of batches one behind the other, with offsets missing as compaction leaves them."""
    data = batch_of(records, codec, holes)
    later = bytearray(batch_of(records))
    later[:8] = (10**6).to_bytes(8, "big")  # the broker sets the offset of a batch's first record
    data += later
    right = told(taken_by_aiokafka(data, position))
    assert told(taken_by_us(data, position)) == right
    assert told(taken_as_tuples(data, position)) == right


def test_the_times_are_the_brokers_if_the_topic_has_it_so() -> None:
    data = bytearray(batch_of([(5, b"k", b"v", []), (9, b"k", b"v", [])]))
    data[22] |= _DefaultRecordBatchPy.TIMESTAMP_TYPE_MASK
    more: Any = ([], 0, None, None, False, 0)  # the checksum does not match any more
    found = list(RawRecords(PLACE, Batches(bytes(data)), *more))
    assert [record.timestamp for record in found] == [9, 9]


def test_a_damaged_batch_is_not_read() -> None:
    data = bytearray(batch_of([(0, b"key", b"value", [])]))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        taken_by_us(bytes(data))


def test_a_batch_of_a_format_of_old_is_refused_and_not_misread() -> None:
    builder = LegacyRecordBatchBuilder(1, 0, 1000)
    builder.append(0, 0, b"key", b"value")
    with pytest.raises(CorruptRecordException, match=r"before Kafka 0\.11"):
        taken_by_us(bytes(builder.build()))


@given(st.dictionaries(st.from_regex("[a-z-]{1,63}", fullmatch=True), st.binary(max_size=80)))
def test_a_header_is_found_without_reading_those_before_it(headers: dict[str, bytes]) -> None:
    (record,) = taken_by_us(batch_of([(0, None, None, list(headers.items()))]))
    for name, value in headers.items():
        assert record.headers.likely(name) == value or name.encode() in b"".join(headers.values())
    assert record.headers.likely("not-there.") is None
    assert dict(reversed(record.headers)) == headers


@pytest.mark.parametrize("body", [b"", b"\x02a", b"\x02\xff\x02a", b"\x01\x02a"])
def test_headers_that_are_none_are_an_error(body: bytes) -> None:
    with pytest.raises(CorruptRecordException):
        list(HeaderBlock(1, body))


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (fetcher.Fetcher, "_proc_fetch_request"),
        (fetcher.PartitionRecords, "__iter__ _unpack_records _consumer_record"),
        (_DefaultRecordBatchPy, "_maybe_uncompress validate_crc base_offset max_timestamp"),
        (_MemoryRecordsPy, "next_batch _cache_next has_next"),
    ],
)
def test_what_is_leant_on_is_still_there(owner: type, names: str) -> None:
    for name in names.split():
        assert name in vars(owner)


def test_a_fetch_makes_its_records_by_the_names_that_we_replace() -> None:
    names = fetcher.Fetcher._proc_fetch_request.__code__.co_names
    assert {"MemoryRecords", "PartitionRecords"} <= set(names)


@pytest.mark.anyio
@pytest.mark.kafka
async def test_only_the_headers_of_the_topics_in_question_stay_bytes(
    kafka: KafkaServer, prefix: str
) -> None:
    await create_topics(kafka.bootstrap_servers, prefix, ["cases", "case-state"], 1)
    sent: Headers = [("a", b"1"), ("a", b"\xff")]
    names = [f"{prefix}cases", f"{prefix}case-state"]
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, compression_type="zstd"
    ) as producer:
        for name in names:
            for number in range(50):
                await producer.send(name, b"v%d" % number, b"k", headers=sent)
    async with AIOKafkaConsumer(
        *names, bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        read_raw(consumer, {names[1]}.__contains__)
        found: dict[str, list[Any]] = {name: [] for name in names}
        while any(len(records) < 50 for records in found.values()):
            fetched: Mapping[Any, list[Any]] = await consumer.getmany(timeout_ms=1000)
            for tp, records in fetched.items():
                found[tp.topic] += records
    for records in found.values():
        assert [record.value for record in records] == [b"v%d" % n for n in range(50)]
        assert [record.offset for record in records] == list(range(50))
        assert all(list(record.headers) == sent for record in records)
    kinds = [{isinstance(r.headers, HeaderBlock) for r in found[name]} for name in names]
    assert kinds == [{False}, {True}]
