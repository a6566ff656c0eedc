"""Events as records: sizes that hold, pieces that make the body again."""

import hashlib

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given, strategies as st

from ingress.records import Event, Record, claim_records
from schemas.partitioner import partition_of
from schemas.topics import LARGE_RECORD, MEBIBYTE
from tests.ingress.rig import Rig
from tests.kafka_tools import read_all

HEADERS = st.lists(
    st.tuples(st.text(st.characters(max_codepoint=255), max_size=20), st.binary(max_size=50)),
    max_size=20,
)


@given(st.binary(max_size=200), HEADERS)
def test_the_size_is_never_below_the_batch_that_goes_out(
    body: bytes, headers: list[tuple[str, bytes]]
) -> None:
    record = Record("captured", b"key", body, headers)
    batch = BatchBuilder(1, 0)
    batch.append(timestamp=1, key=record.key, value=record.value, headers=record.headers)
    assert batch.size() <= record.size


def test_a_claim_comes_last_and_says_what_the_pieces_hold() -> None:
    body = bytes(range(256)) * 4096 * 2 + b"rest"
    event = Event("id", [("a", b"b")], body)
    *pieces, claim = claim_records(event, "hash")
    assert b"".join(piece.value or b"" for piece in pieces) == body
    assert [piece.headers for piece in pieces] == [
        [("casewire-piece", str(index).encode())] for index in range(3)
    ]
    assert claim.value is None
    assert claim.headers == [("a", b"b"), ("casewire-claim", f"3;{len(body)};hash".encode())]
    assert {record.key for record in (*pieces, claim)} == {b"id"}


@pytest.mark.anyio
async def test_a_body_of_any_size_is_stored_and_poisons_nothing(rig: Rig) -> None:
    sizes = [LARGE_RECORD - 2 * 1024, LARGE_RECORD, LARGE_RECORD + 1, 20 * MEBIBYTE + 7]
    sent = [size.to_bytes(4, "big") * (size // 4) + b"x" * (size % 4) for size in sizes]
    ids = []
    for body in sent:
        reply = await rig.post(body)
        assert reply.status == 200, reply.text
        ids.append(reply.event_id)
        assert (await rig.post(b"small")).status == 200
    captured = await rig.captured()
    pieces: dict[str, dict[int, bytes]] = {event_id: {} for event_id in ids}
    partitions: dict[str, set[int]] = {event_id: set() for event_id in ids}
    for record in await read_all(rig.bootstrap, rig.prefix + "bodies"):
        event_id = (record.key or b"").decode()
        pieces[event_id][int(dict(record.headers)["casewire-piece"])] = record.value or b""
        partitions[event_id].add(record.partition)
    for event_id, body in zip(ids, sent, strict=True):
        record = captured[event_id]
        claim = dict(record.headers).get("casewire-claim")
        if claim is None:
            assert record.value == body
            assert len(body) < LARGE_RECORD
            continue
        whole = b"".join(pieces[event_id][index] for index in range(len(pieces[event_id])))
        digest = hashlib.sha256(body).hexdigest()
        assert record.value is None
        assert whole == body
        assert claim == f"{len(pieces[event_id])};{len(body)};{digest}".encode()
        assert partitions[event_id] == {partition_of(event_id.encode(), 8)}
