"""HQ's own sample bodies, and bad ones, from the POST to the topics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import aiohttp
import orjson
import pytest

from casewire.reading import read_topic
from casewire.sums import TYPED_TOPICS
from schemas.dead_letter import DeadLetter
from schemas.topics import MEBIBYTE
from streams.records import Record, captured_id, header
from tests.end_to_end.conftest import DATABASE
from tests.end_to_end.system import System
from tests.end_to_end.tables import held_cases, postgres_query, sqlite_query
from tests.schemas.captures import JSON, RECEIVED_ON, XML, fixture
from tests.schemas.test_fixtures import DEAD, EVENTS, EXPECTED
from tests.servers import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.kafka, pytest.mark.postgres]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What followed from captured events, by their ids."""

    captured: Mapping[str, Record]
    typed: Mapping[str, Record]
    dead: Mapping[str, DeadLetter]


async def post(
    url: str, body: bytes, headers: Sequence[tuple[str, str]]
) -> tuple[int, Mapping[str, str]]:
    """Return status and answer, as JSON if it is that."""
    async with (
        aiohttp.ClientSession() as client,
        client.post(url, data=BytesIO(body), headers=headers) as answer,
    ):
        text = await answer.read()
        return answer.status, orjson.loads(text) if answer.status == 200 else {}


async def outcomes(system: System) -> Outcomes:
    await system.caught_up()
    letters = [DeadLetter.from_json(value) for value in await system.values("dead-letters")]
    return Outcomes(
        captured={captured_id(r): r async for r in read_topic(system.kafka, "captured")},
        typed={
            captured_id(record): record
            for topic in TYPED_TOPICS
            async for record in read_topic(system.kafka, topic)
        },
        dead={letter.captured_id: letter for letter in letters if letter.stage == "decode"},
    )


async def test_every_sample_comes_out_as_what_it_is(system: System) -> None:
    ids = {}
    for name in (*EVENTS, *DEAD):
        sample = fixture(name)
        headers = [(key, value.decode()) for key, value in sample.headers]
        url = f"{system.address('demo')}?app_id=db9f874f"
        status, receipt = await post(url, sample.body, headers)
        assert (status, receipt["stored"]) == (200, "kafka")
        ids[name] = receipt["id"]
    found = await outcomes(system)
    for name, event_id in ids.items():
        assert found.captured[event_id].value == fixture(name).body
    for name, (event_type, key) in EVENTS.items():
        record = found.typed[ids[name]]
        assert header(record.headers, "ce_type") == event_type, name
        assert (record.key or b"").decode() in (key, ids[name]), name
    for name, cause in DEAD.items():
        assert found.dead[ids[name]].cause == cause, name


async def test_values_are_the_ones_that_were_read_against_the_samples(system: System) -> None:
    ids = {}
    for path in sorted(EXPECTED.iterdir()):
        sample = fixture(path.name.removesuffix(".expected.json"))
        headers = [(key, value.decode()) for key, value in sample.headers]
        url = f"{system.address('demo')}?app_id=db9f874f"
        ids[path] = (await post(url, sample.body, headers))[1]["id"]
    assert len(ids) >= 10
    found = await outcomes(system)
    for path, event_id in ids.items():
        assert orjson.loads(found.typed[event_id].value or b"") == orjson.loads(path.read_bytes())


def case(case_id: str, **changes: object) -> bytes:
    body = {
        "domain": "bad",
        "case_id": case_id,
        "user_id": "u1",
        "closed": False,
        "xform_ids": ["f1"],
        "date_closed": None,
        "date_modified": "2026-01-01T00:00:00.000000Z",
        "server_date_modified": "2026-01-01T00:00:00.000000Z",
        "properties": {"case_type": "patient", "case_name": "Synthetic One"},
        "indices": {},
        "attachments": {},
    }
    return orjson.dumps(body | changes)


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(
        b'<!ENTITY a%d "%s">' % (i, b"&a%d;" % (i - 1) * 10 if i else b"&a;" * 10)
        for i in range(12)
    )
    + b"]><b>&a11;</b>"
)
ENTITY = b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><data>&x;</data>'
V2 = b'xmlns="http://commcarehq.org/case/transaction/v2"'

BAD = [
    ("empty", b"", JSON, "unknown_kind"),
    ("broken XML", b"<data><q>", XML, "malformed_xml"),
    ("XML bomb", BOMB, XML, "malformed_xml"),
    ("external entity", ENTITY, XML, "malformed_xml"),
    ("XML that nests deep", b"<a>" * 10_000 + b"</a>" * 10_000, XML, "malformed_xml"),
    ("broken JSON", b'{"case_id": ', JSON, "malformed_json"),
    ("JSON that nests deep", b"[" * 10_000 + b"]" * 10_000, JSON, "malformed_json"),
    ("case without id", case(""), JSON, "missing_id"),
    ("case XML without id", b"<case " + V2 + b"/>", XML, "missing_id"),
    ("no date", case("c", server_date_modified="yesterday"), JSON, "invalid_field"),
    ("a date to come", case("c", server_date_modified="2999-01-01"), JSON, "invalid_field"),
    ("NUL bytes", b"\0\0\0", JSON, "unknown_kind"),
    ("NUL in XML", b"<data>\0</data>", XML, "malformed_xml"),
    ("JSON that is not UTF-8", b'{"case_id": "\xff"}', JSON, "malformed_json"),
    ("XML that is not UTF-8", b"<data>\xff</data>", XML, "malformed_xml"),
    ("nothing known", b"hello", JSON, "unknown_kind"),
    ("a list", b"[1, 2]", JSON, "unknown_kind"),
]  # fmt: skip


async def test_bad_bodies_become_dead_letters_and_the_next_event_goes_through(
    system: System, postgres: PostgresServer
) -> None:
    ids = {}
    for name, body, content_type, _cause in BAD:
        status, receipt = await post(system.address("bad"), body, [("content-type", content_type)])
        assert status == 200, name
        ids[name] = receipt["id"]
    assert (await post(system.address("bad"), bytes(100 * MEBIBYTE), []))[0] == 413
    assert (await post(system.address("bad"), case("good"), []))[0] == 200
    found = await outcomes(system)
    assert {name: found.dead[event_id].cause for name, event_id in ids.items()} == {
        name: cause for name, _body, _type, cause in BAD
    }
    for name, event_id in ids.items():
        letter = found.dead[event_id]
        assert letter.domain == "bad", name
        assert "passwd" not in letter.explanation
    warehouse = postgres_query(postgres.url(DATABASE), "bad")
    files = sqlite_query(system.folder / "data" / "sqlite" / "bad.db")
    assert "good" in held_cases(warehouse)
    assert "good" in held_cases(files)


async def test_a_row_that_one_target_refuses_is_its_dead_letter_only(
    system: System, postgres: PostgresServer
) -> None:
    nul = case("nul", properties={"case_type": "patient", "note": "a\0b"})
    await post(system.address("refused"), nul, [])
    await post(system.address("refused"), case("good"), [])
    await system.caught_up()
    warehouse = postgres_query(postgres.url(DATABASE), "refused")
    files = sqlite_query(system.folder / "data" / "sqlite" / "refused.db")
    assert held_cases(warehouse).keys() == {"good"}
    assert held_cases(files)["nul"].properties["note"] == "a\0b"
    letters = [DeadLetter.from_json(value) for value in await system.values("dead-letters")]
    refused = [letter for letter in letters if letter.domain == "refused"]
    assert [(letter.stage, letter.path) for letter in refused] == [
        ("sink:warehouse", "properties.note")
    ]


async def test_headers_arrive_as_they_were_sent(system: System) -> None:
    sent = [
        ("content-type", JSON),
        ("server-modified-on", RECEIVED_ON),
        ("x-twice", "one"),
        ("x-twice", "two"),
        ("x-name", "Zoë"),
        ("authorization", "Basic c2VjcmV0"),
        ("x-api-key", "secret"),
        ("casewire-domain", "elsewhere"),
        ("ce_id", "forged"),
    ]
    _status, receipt = await post(system.address("headers"), case("c1"), sent)
    found = await outcomes(system)
    for record in (found.captured[receipt["id"]], found.typed[receipt["id"]]):
        assert header(record.headers, "server-modified-on") == RECEIVED_ON
        assert [value for name, value in record.headers if name == "x-twice"] == [b"one", b"two"]
        assert header(record.headers, "x-name") == "Zoë"
        assert header(record.headers, "casewire-domain") == "headers"
        names = [name for name, _ in record.headers]
        assert names.count("casewire-domain") == names.count("ce_id") == 1
        assert not {"authorization", "x-api-key"} & {*names}
