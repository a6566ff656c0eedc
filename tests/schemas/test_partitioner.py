"""The partition of a key is the one that Kafka's Java client chooses."""

import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given, strategies as st

from schemas.partitioner import partition_of


@pytest.mark.parametrize(
    ("key", "hashed"),
    # From testMurmur2 in Kafka's own UtilsTest.java.
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"abc", 479470107),
    ],
)
def test_partitions_are_those_of_java(key: bytes, hashed: int) -> None:
    assert [partition_of(key, count) for count in (1, 8, 50)] == [
        (hashed & 0x7FFFFFFF) % count for count in (1, 8, 50)
    ]


@given(st.binary(max_size=100), st.integers(1, 100))
def test_partitions_are_those_of_aiokafka(key: bytes, count: int) -> None:
    """Which goes byte by byte, and takes twice as long."""
    assert partition_of(key, count) == (murmur2(key) & 0x7FFFFFFF) % count
