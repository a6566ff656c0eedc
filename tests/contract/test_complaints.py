"""What users of today's tools complain of (peers.md), for each type of sink on its real server.

A target is read as the documentation tells readers to: tables as they are, and of what is kept
event by event the one with the greatest version.
"""

import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from streams.delivery import Delivery
from tests.contract.rigs import PostgresRig, SqliteRig, State
from tests.contract.targets import (
    FilesShelf,
    Shelf,
    SqlShelf,
    Writer,
    http_shelf,
    kafka_shelf,
)
from tests.servers import KafkaServer, PostgresServer

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[
        "sqlite",
        "http",
        "files",
        pytest.param("postgres", marks=pytest.mark.postgres),
        pytest.param("kafka", marks=pytest.mark.kafka),
    ]
)
async def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shelf]:
    if request.param == "sqlite":
        yield SqlShelf(SqliteRig(tmp_path / "sqlite"))
    elif request.param == "postgres":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        yield SqlShelf(PostgresRig(postgres.url()))
    elif request.param == "kafka":
        kafka: KafkaServer = request.getfixturevalue("kafka")
        yield await kafka_shelf(kafka, f"subscriber-{uuid.uuid4().hex[:10]}")
    elif request.param == "files":
        yield FilesShelf(tmp_path / "lake")
    else:
        async with http_shelf() as shelf:
            yield shelf


@pytest.fixture
def to(shelf: Shelf) -> Writer:
    return Writer(f"d-{uuid.uuid4().hex[:12]}", shelf.every)


async def deliver(shelf: Shelf, to: Writer, *batches: Sequence[State]) -> Sequence[str]:
    """Write batches, each by a worker of its own; return how all ended."""
    ends: list[str] = []
    for batch in batches:
        delivery = Delivery("test", shelf.sink())
        ends += (await delivery.deliver(to.records(*batch, start=len(ends)))).ends
        await delivery.close()
    return ends


async def test_a_bad_row_neither_blocks_its_batch_nor_vanishes_with_it(
    shelf: Shelf, to: Writer
) -> None:
    batch = [to.case("c1", 1, n="1"), shelf.bad(to.domain), to.case("c2", 1, n="2")]
    assert await deliver(shelf, to, batch, [to.case("c3", 1)]) == [
        "written", "dead", "written", "written",
    ]  # fmt: skip
    assert (await shelf.cases(to.domain)).keys() == {"c1", "c2", "c3"}


async def test_a_late_update_does_not_overwrite_a_newer_one(shelf: Shelf, to: Writer) -> None:
    await deliver(shelf, to, [to.case("c1", 2, n="new")], [to.case("c1", 1, n="old")])
    assert (await shelf.cases(to.domain))["c1"]["n"] == "new"


async def test_a_cleared_value_is_cleared_and_a_vanished_one_gone(shelf: Shelf, to: Writer) -> None:
    await deliver(shelf, to, [to.case("c1", 1, phone="1", bp="80")], [to.case("c1", 2, phone="")])
    held = (await shelf.cases(to.domain))["c1"]
    assert held["phone"] == ""
    assert "bp" not in held


async def test_a_repeat_that_shrank_keeps_no_old_rows(shelf: Shelf, to: Writer) -> None:
    await deliver(shelf, to, [to.form("f1", 1, "abc")], [to.form("f1", 2, "b")])
    assert await shelf.visits(to.domain, "f1") == [{"drug": "b"}]
    await deliver(shelf, to, [to.form("f1", 3, "")])
    assert await shelf.visits(to.domain, "f1") == []


async def test_what_is_deleted_is_gone(shelf: Shelf, to: Writer) -> None:
    await deliver(shelf, to, [to.case("c1", 1), to.case("c2", 1)], [to.case("c1", 2, gone=True)])
    assert (await shelf.cases(to.domain)).keys() == {"c2"}


async def test_what_comes_twice_or_in_other_pieces_is_there_once(shelf: Shelf, to: Writer) -> None:
    batch = [to.case(f"c{n}", 1, n=str(n)) for n in range(4)]
    await deliver(shelf, to, batch)
    once = await shelf.cases(to.domain)
    await deliver(shelf, to, batch)
    await deliver(shelf, to, batch[:1], batch[1:])
    assert await shelf.cases(to.domain) == once
    assert len(once) == 4
