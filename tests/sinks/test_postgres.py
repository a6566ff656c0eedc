import asyncio
import contextlib
import os
import random
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from schemas.case import CaseState
from schemas.errors import RejectedRowsError, Rejection, TargetError, TransientError
from sinks.names import quoted
from sinks.postgres import PostgresSink
from tests.contract.rigs import PARENT, PostgresRig, case_state, form_state, opened
from tests.servers import (
    LocalPostgres,
    PostgresServer,
    free_port,
    running_postgres,
    wait_for_port,
)

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

Session = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def rig(postgres: PostgresServer) -> PostgresRig:
    return PostgresRig(postgres.url())


@pytest.fixture
def domain() -> str:
    return f"d-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def mortal() -> Iterator[LocalPostgres]:
    """A server that a test may kill; it has to start it again."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def pooled(rig: PostgresRig, tmp_path: Path) -> Iterator[str]:
    """The URL of a PgBouncer in transaction mode that has one session for all."""
    port, parts = free_port(), urlsplit(rig.url)
    settings = tmp_path / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={parts.hostname} port={parts.port} user={parts.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 1\n"
    )
    # It refuses to run as root, and so may not read a folder of pytest's.
    command = ["pgbouncer", *(("-u", "postgres") if os.geteuid() == 0 else ()), str(settings)]
    log = tmp_path / "pgbouncer.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_for_port(port, process, log)
        yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def session(url: str) -> Iterator[Session]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@contextmanager
def locked(url: str, table: str) -> Iterator[None]:
    """Hold the table back from everybody else, or until the server is gone."""
    connection = psycopg.connect(url)
    connection.execute(f"LOCK TABLE {table}".encode())
    try:
        yield
    finally:
        connection.close()


async def until_waiting(url: str, statement: str) -> None:
    """Return when a session waits for a lock in such a statement."""
    query = (
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND query LIKE %s AND application_name = 'casewire'"
    )
    async with asyncio.timeout(10):
        with session(url) as connection:
            while connection.execute(query, [f"{statement}%"]).fetchone() is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("statement", ["INSERT INTO", "ALTER TABLE"])
async def test_a_server_killed_in_mid_batch_and_back(
    mortal: LocalPostgres, domain: str, statement: str
) -> None:
    rig = PostgresRig(mortal.url())
    new = {"new": "x"} if statement == "ALTER TABLE" else {}
    batch = [case_state(domain, f"c{n}", 2, properties=new) for n in range(50)]
    async with opened(rig.sink()) as sink:
        await sink.write([case_state(domain, "c1", 1)])
        with locked(rig.url, f'"{domain}".case_patient'):
            writing = asyncio.create_task(asyncio.wait_for(sink.write(batch), 30))
            await until_waiting(rig.url, statement)
            mortal.stop("immediate")
            with pytest.raises(TransientError):
                await writing
            with pytest.raises(TransientError):
                await sink.write(batch)
        mortal.start()
        assert {case_id: row.own["cw_version"] for case_id, row in rig.rows(domain).items()} == {
            "c1": 1
        }
        assert await sink.write(batch) == ["written"] * 50
    assert {row.own["cw_version"] for row in rig.rows(domain).values()} == {2}
    assert len(rig.rows(domain)) == len(rig.guards(domain)) == 50


async def test_a_server_killed_while_a_repeat_is_written(
    mortal: LocalPostgres, domain: str
) -> None:
    """A form has all rows of one version: those of its repeats are in the same transaction."""
    rig = PostgresRig(mortal.url())
    old, new = ([{"drug": "a"}] * 3, [{"drug": "b"}] * 2)
    async with opened(rig.sink()) as sink:
        await sink.write([form_state(domain, version=1, form={"visit": old})])
        (before,) = rig.forms(domain).values()
        table = rig.query(domain, "SELECT name FROM cw_names WHERE kind = 'repeat'")[0][0]
        with locked(rig.url, f'"{domain}"."{table}"'):
            again = [form_state(domain, version=2, form={"visit": new, "x": "1"})]
            writing = asyncio.create_task(asyncio.wait_for(sink.write(again), 30))
            await until_waiting(rig.url, "LOCK TABLE")
            mortal.stop("immediate")
            with pytest.raises(TransientError):
                await writing
        mortal.start()
        assert rig.forms(domain) == {"f1": before}
        assert await sink.write(again) == ["written"]
    assert len(rig.forms(domain)["f1"].repeats["visit"]) == 2


async def test_a_server_restarted_between_batches(mortal: LocalPostgres, domain: str) -> None:
    async with opened(PostgresSink(mortal.url())) as sink:
        await sink.write([case_state(domain)])
        mortal.stop("fast")
        mortal.start()
        with pytest.raises(TransientError):
            await sink.write([case_state(domain, version=2)])
        assert await sink.write([case_state(domain, version=2)]) == ["written"]


async def test_sinks_share_one_session_of_a_pooler(
    rig: PostgresRig, pooled: str, domain: str
) -> None:
    """PgBouncer in transaction mode: no statement of one is ever taken for another's."""
    domains = [f"{domain}.{number}" for number in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        sinks = [await stack.enter_async_context(opened(PostgresSink(pooled))) for _ in domains]
        for version in range(1, 12):
            batches = [[case_state(each, f"c{n}", version) for n in range(3)] for each in domains]
            pairs = zip(sinks, batches, strict=True)
            written = await asyncio.gather(*(sink.write(batch) for sink, batch in pairs))
            assert written == [["written"] * 3] * 3
    for each in domains:
        assert [guard[1] for guard in rig.guards(each).values()] == [11] * 3


async def test_a_write_that_is_cancelled_leaves_nothing_behind(
    rig: PostgresRig, domain: str
) -> None:
    async with opened(rig.sink()) as sink:
        await sink.write([case_state(domain)])
        with locked(rig.url, f'"{domain}".case_patient'):
            writing = asyncio.create_task(sink.write([case_state(domain, version=2)]))
            await until_waiting(rig.url, "INSERT INTO")
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
        assert rig.guards(domain)["c1"] == ("patient", 1, False)
        assert await sink.write([case_state(domain, version=2)]) == ["written"]


async def test_a_lock_that_is_not_given_is_tried_again(rig: PostgresRig, domain: str) -> None:
    url = f"{rig.url}?options=-c%20statement_timeout%3D200"
    async with opened(PostgresSink(url)) as sink:
        await sink.write([case_state(domain)])
        with locked(rig.url, f'"{domain}".case_patient'), pytest.raises(TransientError):
            await sink.write([case_state(domain, version=2)])
        assert await sink.write([case_state(domain, version=2)]) == ["written"]


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        ({"properties": {"note": "a\0b"}}, "properties.note"),
        ({"properties": {"no\0te": "x"}}, "properties"),
        ({"case_id": "c\0"}, "case_id"),
        ({"user_id": "\0"}, "user_id"),
        ({"indices": {"a\0": PARENT["parent"]}}, "indices"),
    ],
)
async def test_nul_is_refused_by_name(
    rig: PostgresRig, domain: str, bad: Mapping[str, Any], path: str
) -> None:
    async with opened(rig.sink()) as sink:
        states = [case_state(domain), case_state(**{"domain": domain, "case_id": "bad", **bad})]
        with pytest.raises(RejectedRowsError) as refused:
            await sink.write(states)
        assert {place: why.path for place, why in refused.value.rows.items()} == {1: path}
        assert await sink.write(states[:1]) == ["written"]


async def test_text_that_only_looks_like_nul_is_taken(rig: PostgresRig, domain: str) -> None:
    async with opened(rig.sink()) as sink:
        await sink.write([case_state(domain, properties={"note": "\\u0000", "list": ["\0"]})])
    properties = rig.rows(domain)["c1"].properties
    assert (properties["note"], properties["list"]) == ("\\u0000", '["\\u0000"]')


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
AWKWARD = st.sampled_from(
    ['"', "\\", "\\n", "\n", "null", "NULL", "", " ", "{}", "a,b", "\x1f", "\x7f"]
)


@given(values=st.lists(st.none() | AWKWARD | TEXTS, min_size=1, max_size=6))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_text_is_held_as_it_was_sent(
    rig: PostgresRig, domain: str, values: list[str | None]
) -> None:
    sent = {f"c{number}": {"note": value} for number, value in enumerate(values)}
    states = [case_state(domain, each, properties=note) for each, note in sent.items()]
    async with opened(rig.sink()) as sink:
        await sink.write(states)
    rows = rig.rows(domain)
    assert [rows[each].properties.get("note") for each in sent] == values


async def test_rows_that_the_server_refuses_are_found_and_nothing_is_written(
    rig: PostgresRig, domain: str
) -> None:
    states = [case_state(domain, f"c{n:02}") for n in range(40)]
    states[3] = case_state(domain, "c03", date_modified="secret")
    states[20] = case_state(domain, "".join(random.Random(1).choices("abcdefgh", k=20_000)))  # noqa: S311
    states[39] = case_state(domain, "c39", properties={f"p{n}": "0123456789" for n in range(1200)})
    left, rejections = dict(enumerate(states)), dict[int, Rejection]()
    async with opened(rig.sink()) as sink:
        while len(rejections) < 3:
            with pytest.raises(RejectedRowsError) as refused:
                await sink.write(list(left.values()))
            assert rig.guards(domain) == {}
            places = list(left)
            rejections |= {places[number]: why for number, why in refused.value.rows.items()}
            left = {place: state for place, state in left.items() if place not in rejections}
        assert {place: why.cause for place, why in rejections.items()} == {
            3: "rejected_by_target",
            20: "too_large",
            39: "too_large",
        }
        assert "secret" in rejections[3].target_error
        assert "secret" not in rejections[3].explanation
        assert await sink.write(list(left.values())) == ["written"] * 37
    assert len(rig.rows(domain)) == 37


async def test_prepared_statements_outlive_a_refused_row_and_a_dropped_schema(
    rig: PostgresRig, domain: str
) -> None:
    async with opened(rig.sink()) as sink:
        for version in range(1, 10):
            assert await sink.write([case_state(domain, version=version)]) == ["written"]
        for version in range(10, 13):
            bad = case_state(domain, "c2", version, date_modified="never")
            with pytest.raises(RejectedRowsError) as refused:
                await sink.write([case_state(domain, version=version), bad])
            assert list(refused.value.rows) == [1]
            assert await sink.write([case_state(domain, version=version)]) == ["written"]
        with session(rig.url) as admin:
            admin.execute(f"DROP SCHEMA {quoted(domain)} CASCADE".encode())
        with pytest.raises(TargetError):
            await sink.write([case_state(domain, version=13)])
        for version in range(14, 24):
            assert await sink.write([case_state(domain, version=version)]) == ["written"]
    assert rig.guards(domain) == {"c1": ("patient", 23, False)}


async def test_a_bad_row_of_one_domain_is_named_by_its_place_in_the_batch(
    rig: PostgresRig, domain: str
) -> None:
    states = [
        case_state(f"{domain}.b", "z"),
        case_state(f"{domain}.a", "y", date_modified="never"),
        case_state(f"{domain}.a", "x"),
    ]
    async with opened(rig.sink()) as sink:
        with pytest.raises(RejectedRowsError) as refused:
            await sink.write(states)
    assert list(refused.value.rows) == [1]


@pytest.mark.parametrize(
    ("role", "database"), [("{}", "no_such_database"), ("no_such_role:secret", "postgres")]
)
async def test_an_address_that_lets_nobody_in_is_for_the_operator(
    postgres: PostgresServer, role: str, database: str
) -> None:
    role = role.format(postgres.user)
    sink = PostgresSink(f"postgresql://{role}@127.0.0.1:{postgres.port}/{database}")
    with pytest.raises(TargetError) as error:
        await sink.open()
    assert "secret" not in str(error.value)
    await sink.close()


async def test_a_server_that_is_not_there_is_tried_again() -> None:
    sink = PostgresSink("postgresql://u@127.0.0.1:1/x")
    with pytest.raises(TransientError):
        await sink.open()
    await sink.close()


async def test_missing_privileges_are_for_the_operator_and_few_are_enough(
    rig: PostgresRig, postgres: PostgresServer, domain: str
) -> None:
    role = f"r{uuid.uuid4().hex[:8]}"
    with session(rig.url) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN".encode())
        url = f"postgresql://{role}@127.0.0.1:{postgres.port}/postgres"
        async with opened(PostgresSink(url)) as sink:
            with pytest.raises(TargetError, match="InsufficientPrivilege 42501"):
                await sink.write([case_state(domain)])
            admin.execute(f"CREATE SCHEMA {quoted(domain)} AUTHORIZATION {role}".encode())
            assert await sink.write([case_state(domain)]) == ["written"]
            admin.execute(f'REVOKE ALL ON "{domain}".case_patient FROM {role}'.encode())
            with pytest.raises(TargetError, match="InsufficientPrivilege 42501"):
                await sink.write([case_state(domain, version=2)])


async def test_the_grants_of_the_documentation_are_enough(
    rig: PostgresRig, postgres: PostgresServer, domain: str
) -> None:
    """docs/postgresql.md: who writes may create schemas, who reads sees what comes later too."""
    writer, reader = f"w{uuid.uuid4().hex[:8]}", f"r{uuid.uuid4().hex[:8]}"
    address = f"127.0.0.1:{postgres.port}/postgres"
    moment = {"at": "2026-11-22T10:00:00Z"}
    with session(rig.url) as admin:
        admin.execute(f"CREATE ROLE {writer} LOGIN; CREATE ROLE {reader} LOGIN".encode())
        admin.execute(f"GRANT CREATE ON DATABASE postgres TO {writer}".encode())
        async with opened(PostgresSink(f"postgresql://{writer}@{address}")) as sink:
            assert await sink.write([case_state(domain)]) == ["written"]
            admin.execute(
                f'GRANT USAGE ON SCHEMA "{domain}" TO {reader};'
                f'ALTER DEFAULT PRIVILEGES FOR ROLE {writer} IN SCHEMA "{domain}" '
                f"GRANT SELECT ON TABLES TO {reader}".encode()
            )
            assert await sink.write([form_state(domain, form=moment)]) == ["written"]
        ((view,),) = rig.query(
            domain, "SELECT name FROM cw_names WHERE kind = 'view' AND name LIKE 'form%'"
        )
    with session(f"postgresql://{reader}@{address}") as analyst:
        text = f'SELECT at__time IS NOT NULL FROM "{domain}"."{view}"'  # noqa: S608
        assert analyst.execute(text.encode()).fetchall() == [(True,)]


async def test_a_database_in_another_encoding_is_for_the_operator(rig: PostgresRig) -> None:
    name = f"l{uuid.uuid4().hex[:8]}"
    with session(rig.url) as admin:
        admin.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0".encode())
    sink = PostgresSink(rig.url.rpartition("/")[0] + f"/{name}")
    with pytest.raises(TargetError, match="LATIN1"):
        await sink.open()
    await sink.close()


async def test_a_schema_that_was_dropped_is_made_anew(rig: PostgresRig, domain: str) -> None:
    async with opened(rig.sink()) as sink:
        await sink.write([case_state(domain)])
        with session(rig.url) as admin:
            admin.execute(f"DROP SCHEMA {quoted(domain)} CASCADE".encode())
        with pytest.raises(TargetError):
            await sink.write([case_state(domain, "c2")])
        assert await sink.write([case_state(domain, "c2")]) == ["written"]
    assert rig.rows(domain).keys() == {"c2"}


async def test_a_schema_that_was_emptied_is_filled_anew(rig: PostgresRig, domain: str) -> None:
    async with opened(rig.sink()) as sink, opened(rig.sink()) as other:
        await sink.write([case_state(domain)])
        with session(rig.url) as admin:
            admin.execute(f"DROP SCHEMA {quoted(domain)} CASCADE".encode())
        await other.write([case_state(domain, "c2", properties={"case_type": "child", "x": ""})])
        with pytest.raises(TransientError):
            await sink.write([case_state(domain, "c3")])
        assert await sink.write([case_state(domain, "c3")]) == ["written"]
    assert rig.rows(domain).keys() == {"c2", "c3"}


@pytest.mark.parametrize(
    "options", ["", "?options=-c%20default_transaction_isolation%3Dserializable"]
)
async def test_growth_by_workers_that_write_the_same_cases(
    rig: PostgresRig, domain: str, options: str
) -> None:
    """No deadlock, no error, and no column that somebody else added is left uncleared."""
    workers, rounds = 4, 8

    async def work(worker: int) -> None:
        async with opened(PostgresSink(rig.url + options)) as sink:
            for number in range(rounds):
                version = number * workers + worker
                states = [
                    case_state(
                        domain, f"c{case:02}", version,
                        properties={f"v{version}": "x", "case_type": f"t{(case + version) % 3}"},
                    )
                    for case in range(40)
                ]  # fmt: skip
                random.Random(version).shuffle(states)  # noqa: S311
                await sink.write(states)

    await asyncio.gather(*(work(worker) for worker in range(workers)))
    last = workers * rounds - 1
    rows = rig.rows(domain)
    assert len(rows) == 40
    for case_id, row in rows.items():
        assert row.case_type == f"t{(int(case_id[1:]) + last) % 3}"
        assert {name for name in row.properties if name.startswith("v")} == {f"v{last}"}


async def test_a_version_is_compared_with_what_others_leave(rig: PostgresRig, domain: str) -> None:
    async with opened(rig.sink()) as sink:
        await sink.write([case_state(domain)])
        with psycopg.connect(rig.url) as other:
            other.execute(f"SET search_path TO {quoted(domain)}".encode())
            other.execute("SELECT 1 FROM cases FOR UPDATE")
            writing = asyncio.create_task(sink.write([case_state(domain, version=5)]))
            await until_waiting(rig.url, "WITH taken AS")
            other.execute("UPDATE cases SET version = 9")
            other.commit()
        assert await writing == ["stale"]


async def test_a_move_between_tables_and_new_columns_of_both_do_not_deadlock(
    rig: PostgresRig, domain: str
) -> None:
    def of_type(case_type: str, version: int) -> CaseState:
        return case_state(domain, version=version, properties={"case_type": case_type})

    async with opened(rig.sink()) as sink:
        await sink.write([of_type("t1", 1)])
        await sink.write([of_type("t2", 2)])
        with psycopg.connect(rig.url) as other:
            other.execute(f"ALTER TABLE {quoted(domain)}.case_t1 ADD x text".encode())
            writing = asyncio.create_task(sink.write([of_type("t1", 3)]))
            await until_waiting(rig.url, "LOCK TABLE")
            other.execute("SET LOCAL lock_timeout = '100ms'")
            other.execute(f"ALTER TABLE {quoted(domain)}.case_t2 ADD x text".encode())
            other.commit()
        assert await writing == ["written"]


async def test_types_are_what_queries_need(rig: PostgresRig, domain: str) -> None:
    async with opened(rig.sink()) as sink:
        await sink.write([case_state(domain, indices=PARENT, properties={"age": "41"})])
    query = (
        "SELECT pg_typeof(cw_closed), pg_typeof(cw_date_modified), "
        "cw_indices->'parent'->>'case_id', pg_typeof(age) FROM case_patient"
    )
    assert rig.query(domain, query) == [
        ("boolean", "timestamp with time zone", "h1", "text"),
    ]


async def test_a_batch_of_large_cases_is_written_in_pieces(rig: PostgresRig, domain: str) -> None:
    large = {"note": "x" * 7 * 1024 * 1024}
    states = [case_state(domain, case_id, properties=large) for case_id in "abc"]
    async with opened(rig.sink()) as sink:
        assert await sink.write(states) == ["written"] * 3
    assert rig.query(domain, "SELECT sum(length(note)) FROM case_patient") == [(3 * 7 * 1024**2,)]
