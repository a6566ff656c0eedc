"""What every sink promises (sinks/base.py, contract §5 and §8)."""

import asyncio
import contextlib
import uuid
from collections.abc import Mapping, Sequence

import anyio
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from msgspec.structs import replace

from schemas.case import CaseState
from schemas.errors import RejectedRowsError, TransientError
from sinks.base import Result
from sinks.guard import OnDelete
from tests.contract.rigs import PARENT, Rig, State, StateSink, case_state, opened

pytestmark = pytest.mark.anyio


async def write(rig: Rig, *states: State, on_delete: OnDelete = "delete") -> Sequence[Result]:
    async with opened(rig.sink(on_delete)) as sink:
        return await sink.write(states)


async def written(sink: StateSink, states: Sequence[State]) -> None:
    """Write as the runner does: what is transient, such as a lock, is tried again."""
    with anyio.fail_after(30):
        while True:
            with contextlib.suppress(TransientError):
                await sink.write(states)
                return


async def test_a_state_becomes_a_row_of_its_types_table(rig: Rig, domain: str) -> None:
    state = case_state(domain, indices=PARENT, doubtful=True, properties={"age": "41"})
    assert await write(rig, state) == ["written"]
    row = rig.rows(domain)["c1"]
    assert row.case_type == "patient"
    assert row.own == {
        "cw_domain": domain,
        "cw_case_id": "c1",
        "cw_closed": False,
        "cw_date_modified": "2026-11-22T09:59:00.000000Z",
        "cw_server_date_modified": "2026-11-22T10:00:00.000001Z",
        "cw_user_id": "u1",
        "cw_parent_id": "h1",
        "cw_parent_type": "household",
        "cw_indices": PARENT,
        "cw_version": 1,
        "cw_deleted": False,
        "cw_doubtful": True,
        "cw_source": "snapshot",
    }
    assert row.properties == state.properties
    assert rig.guards(domain) == {"c1": ("patient", 1, False)}


async def test_nothing_to_write_is_written(rig: Rig) -> None:
    assert await write(rig) == []


async def test_the_same_batch_twice_leaves_the_same_as_once(rig: Rig, domain: str) -> None:
    batch = [case_state(domain, f"c{n}", properties={f"p{n}": "x"}) for n in range(5)]
    assert await write(rig, *batch) == ["written"] * 5
    once = rig.rows(domain)
    assert await write(rig, *batch) == ["written"] * 5
    assert rig.rows(domain) == once


async def test_an_older_version_is_stale_and_changes_nothing(rig: Rig, domain: str) -> None:
    await write(rig, case_state(domain, version=5, properties={"age": "41"}))
    before = rig.rows(domain), rig.guards(domain)
    old = case_state(domain, version=4, properties={"age": "40", "case_type": "child"})
    new = case_state(domain, "c2", version=1)
    assert await write(rig, old, new) == ["stale", "written"]
    rows = rig.rows(domain)
    assert ({"c1": rows["c1"]}, {"c1": rig.guards(domain)["c1"]}) == before


async def test_an_equal_version_is_written_again(rig: Rig, domain: str) -> None:
    await write(rig, case_state(domain, version=5, properties={"age": "41"}))
    again = case_state(domain, version=5, properties={"age": "42"})
    assert await write(rig, again) == ["written"]
    assert rig.rows(domain)["c1"].properties["age"] == "42"


async def test_a_newer_version_is_newer_whatever_its_times_say(rig: Rig, domain: str) -> None:
    await write(rig, case_state(domain, version=5))
    earlier = case_state(domain, version=6, server_date_modified="2020-01-01T00:00:00.000000Z")
    assert await write(rig, earlier) == ["written"]
    own = rig.rows(domain)["c1"].own
    assert own["cw_server_date_modified"] == "2020-01-01T00:00:00.000000Z"


async def test_cleared_stays_empty_and_vanished_becomes_null(rig: Rig, domain: str) -> None:
    full = {"phone": "123", "bp": "80", "note": "x"}
    await write(rig, case_state(domain, version=1, properties=full))
    await write(rig, case_state(domain, version=2, properties={"phone": "", "note": None}))
    properties = rig.rows(domain)["c1"].properties
    assert properties["phone"] == ""
    assert "bp" not in properties
    assert "note" not in properties


async def test_values_that_are_no_strings_are_json_text(rig: Rig, domain: str) -> None:
    odd = {"n": 1.5, "yes": True, "list": ["a", {"b": None}], "text": "1.5"}
    await write(rig, case_state(domain, properties=odd))
    properties = rig.rows(domain)["c1"].properties
    assert {name: properties[name] for name in odd} == {
        "n": "1.5", "yes": "true", "list": '["a",{"b":null}]', "text": "1.5",
    }  # fmt: skip


async def test_columns_appear_when_only_later_rows_have_them(rig: Rig, domain: str) -> None:
    async with opened(rig.sink()) as sink:
        await sink.write([case_state(domain, "c1")])
        await sink.write(
            [case_state(domain, "c2"), case_state(domain, "c3", properties={"late": "x"})]
        )
    assert rig.rows(domain)["c3"].properties["late"] == "x"


async def test_a_case_that_changes_its_type_has_one_row(rig: Rig, domain: str) -> None:
    await write(rig, case_state(domain, version=1, indices=PARENT, properties={"age": "41"}))
    child = case_state(domain, version=2, properties={"case_type": "child"})
    await write(rig, child)
    row = rig.rows(domain)["c1"]
    assert (row.case_type, row.properties) == ("child", child.properties)
    assert "cw_parent_id" not in row.own
    assert rig.guards(domain) == {"c1": ("child", 2, False)}


async def test_a_case_without_a_type_has_a_row(rig: Rig, domain: str) -> None:
    await write(rig, case_state(domain, properties={"case_type": ""}))
    assert rig.rows(domain)["c1"].case_type == ""


async def test_a_case_that_is_gone_loses_its_row_and_is_not_revived(rig: Rig, domain: str) -> None:
    await write(rig, case_state(domain, version=1))
    gone = case_state(domain, version=3, deleted=True, properties={"case_type": ""})
    assert await write(rig, gone) == ["written"]
    assert rig.rows(domain) == {}
    assert await write(rig, case_state(domain, version=2)) == ["stale"]
    assert rig.rows(domain) == {}
    assert rig.guards(domain) == {"c1": ("patient", 3, True)}


async def test_a_case_that_is_gone_can_stay_marked(rig: Rig, domain: str) -> None:
    await write(rig, case_state(domain, version=1, properties={"age": "41"}))
    before = rig.rows(domain)["c1"]
    gone = case_state(domain, version=3, deleted=True, properties={"case_type": ""})
    await write(rig, gone, on_delete="mark")
    row = rig.rows(domain)["c1"]
    assert row.own == {**before.own, "cw_deleted": True}
    assert row.properties == before.properties
    assert await write(rig, case_state(domain, version=2), on_delete="mark") == ["stale"]


@pytest.mark.parametrize("on_delete", ["delete", "mark"])
@pytest.mark.parametrize("case_type", ["patient", "child"])
async def test_a_newer_version_revives(
    rig: Rig, domain: str, on_delete: OnDelete, case_type: str
) -> None:
    await write(rig, case_state(domain, version=1))
    gone = case_state(domain, version=2, deleted=True, properties={"case_type": ""})
    await write(rig, gone, on_delete=on_delete)
    revived = case_state(domain, version=3, properties={"case_type": case_type})
    assert await write(rig, revived, on_delete=on_delete) == ["written"]
    row = rig.rows(domain)["c1"]
    assert (row.case_type, row.own["cw_deleted"]) == (case_type, False)
    assert rig.guards(domain) == {"c1": (case_type, 3, False)}


@pytest.mark.parametrize("on_delete", ["delete", "mark"])
async def test_a_case_may_be_gone_before_it_was_known(
    rig: Rig, domain: str, on_delete: OnDelete
) -> None:
    gone = case_state(domain, version=2, deleted=True)
    assert await write(rig, gone, on_delete=on_delete) == ["written"]
    assert await write(rig, case_state(domain, version=1), on_delete=on_delete) == ["stale"]
    assert rig.rows(domain) == {}


async def test_a_closed_case_can_be_open_again(rig: Rig, domain: str) -> None:
    closed_at = "2026-11-20T08:00:00.000000Z"
    await write(rig, case_state(domain, version=1, closed=True, date_closed=closed_at))
    own = rig.rows(domain)["c1"].own
    assert (own["cw_closed"], own["cw_date_closed"]) == (True, closed_at)
    await write(rig, case_state(domain, version=2))
    own = rig.rows(domain)["c1"].own
    assert own["cw_closed"] is False
    assert "cw_date_closed" not in own


@pytest.mark.parametrize("case_type", ["patient", "child"])
async def test_what_a_format_cannot_say_wipes_nothing(
    rig: Rig, domain: str, case_type: str
) -> None:
    closed_at = "2026-11-20T08:00:00.123456Z"
    full = case_state(domain, version=1, indices=PARENT, closed=True, date_closed=closed_at)
    await write(rig, full, case_state(domain, "c2"))
    xml = {"indices": None, "closed": True, "properties": {"case_type": case_type, "age": "41"}}
    await write(rig, case_state(domain, "c1", 2, **xml), case_state(domain, "c2", 2, **xml))
    rows = rig.rows(domain)
    kept = ("cw_parent_id", "cw_parent_type", "cw_indices", "cw_date_closed")
    assert [rows["c1"].own[name] for name in kept] == ["h1", "household", PARENT, closed_at]
    assert rows["c1"].properties["age"] == "41"
    assert not set(kept[:2]) & rows["c2"].own.keys()
    await write(rig, case_state(domain, version=3))
    assert not {*kept[:2], kept[3]} & rig.rows(domain)["c1"].own.keys()


async def test_the_parent_is_the_index_parent_else_host_else_the_only_one(
    rig: Rig, domain: str
) -> None:
    def index(case_id: str) -> Mapping[str, str]:
        return {"case_type": "t", "case_id": case_id, "relationship": "child"}

    await write(
        rig,
        case_state(domain, "a", indices={"host": index("h"), "parent": index("p")}),
        case_state(domain, "b", indices={"mother": index("m"), "host": index("h")}),
        case_state(domain, "c", indices={"mother": index("m")}),
        case_state(domain, "d", indices={"mother": index("m"), "father": index("f")}),
    )
    rows = rig.rows(domain)
    assert [rows[case_id].own.get("cw_parent_id") for case_id in "abcd"] == ["p", "h", "m", None]


AWKWARD = [
    "order", "Foo", "foo", "FOO", "xmin", "XMIN", "ctid", "tableoid", "rowid", "",
    "%", "%s", "$1", '"', "'; DROP TABLE cases; --", "🙂", "é", "e\u0301", "a b\nc",
    "cw_version", "CW_version", "p_cw_version", "cw_overflow", "domain", "excluded", "new",
    *(f"{'n' * 100}{number}" for number in range(3)), *(f"{'🙂' * 50}{n}" for n in range(3)),
]  # fmt: skip


async def test_every_name_of_a_property_has_a_column_of_its_own(rig: Rig, domain: str) -> None:
    properties = {name: f"value {number}" for number, name in enumerate(AWKWARD)}
    async with opened(rig.sink()) as sink:
        await sink.write([case_state(domain, properties=properties)])
        first = rig.rows(domain)["c1"]
        assert {name: first.properties[name] for name in AWKWARD} == properties
        changed = {name: f"{value}, changed" for name, value in properties.items()}
        late = {"fOO": "late", "n" * 100 + "3": "late"}
        await sink.write([case_state(domain, version=2, properties=changed | late)])
    second = rig.rows(domain)["c1"]
    assert {name: second.properties[name] for name in changed | late} == changed | late
    assert second.own == {**first.own, "cw_version": 2}


async def test_every_case_type_has_a_table_of_its_own(rig: Rig, domain: str) -> None:
    kinds = [*AWKWARD, "patient_pkey", "without_type", "s"]
    states = [
        case_state(domain, f"c{number}", properties={"case_type": kind})
        for number, kind in enumerate(kinds)
    ]
    await write(rig, *states)
    rows = rig.rows(domain)
    assert [rows[f"c{number}"].case_type for number in range(len(kinds))] == kinds


async def test_domains_are_apart(rig: Rig, domain: str) -> None:
    domains = [
        domain,
        f"{domain}.x",
        f"..{domain}",
        f"{domain}-{'x' * 80}a",
        f"{domain}-{'x' * 80}b",
    ]
    states = [case_state(name, properties={"of": name}) for name in domains]
    assert await write(rig, *states) == ["written"] * len(domains)
    for name in domains:
        assert [row.properties["of"] for row in rig.rows(name).values()] == [name]


async def test_awkward_case_ids_are_kept_apart(rig: Rig, domain: str) -> None:
    case_ids = ["", "a", "A", "a ", "%", "é", "e\u0301", "'", "🙂"]
    batch = [case_state(domain, case_id) for case_id in case_ids]
    await write(rig, *batch)
    assert set(rig.rows(domain)) == set(case_ids)
    assert await write(rig, *batch) == ["written"] * len(case_ids)


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        ({"properties": {"note": "\ud800"}}, "properties.note"),
        ({"properties": {"note": ["\udfff"]}}, "properties.note"),
        ({"properties": {"\ud800": "x"}}, "properties"),
        ({"case_id": "\ud800"}, "case_id"),
        ({"indices": {"\ud800": PARENT["parent"]}}, "indices"),
        ({"domain": "../up"}, "domain"),
    ],
)
async def test_a_bad_row_is_named_and_the_others_can_be_written(
    rig: Rig, domain: str, bad: Mapping[str, object], path: str
) -> None:
    good = [case_state(domain, f"c{number}") for number in range(4)]
    broken = case_state(**{"domain": domain, "case_id": "bad", **bad})  # type: ignore[arg-type]
    async with opened(rig.sink()) as sink:
        with pytest.raises(RejectedRowsError) as refused:
            await sink.write([*good[:2], broken, *good[2:]])
        assert list(refused.value.rows) == [2]
        rejection = refused.value.rows[2]
        assert (rejection.cause, rejection.path) == ("invalid_field", path)
        assert await sink.write(good) == ["written"] * 4
    assert len(rig.rows(domain)) == 4


async def test_more_properties_than_a_table_has_columns(rig: Rig, domain: str) -> None:
    many = {f"p{number:04}": "" for number in range(1500)}
    async with opened(rig.sink()) as sink:
        await sink.write([case_state(domain, properties=many)])
        assert rig.rows(domain)["c1"].properties.keys() >= many.keys()
        few = dict.fromkeys(["p0001", "p1499", "new"], "x")
        await sink.write([case_state(domain, version=2, properties=few)])
    assert rig.rows(domain)["c1"].properties == case_state(domain, properties=few).properties


async def test_workers_that_add_different_columns_at_once(rig: Rig, domain: str) -> None:
    async def work(worker: int) -> None:
        async with opened(rig.sink()) as sink:
            for batch in range(6):
                await written(
                    sink,
                    [
                        case_state(
                            domain,
                            f"{worker}-{number}",
                            version=batch,
                            properties={
                                "case_type": f"t{number % 3}", f"w{worker}_{batch}": str(number),
                            },
                        )
                        for number in range(9)
                    ],
                )  # fmt: skip

    await asyncio.gather(*(work(worker) for worker in range(4)))
    rows = rig.rows(domain)
    assert len(rows) == 36
    for case_id, row in rows.items():
        worker, number = case_id.split("-")
        assert row.properties == {
            "case_name": "Ada Example", "owner_id": "o1",
            "case_type": f"t{int(number) % 3}", f"w{worker}_5": number,
        }  # fmt: skip


async def test_workers_on_the_same_cases_leave_the_greatest_version(rig: Rig, domain: str) -> None:
    def batch(version: int) -> list[CaseState]:
        kind = {"case_type": f"t{version % 3}", f"v{version}": "x"}
        states = [case_state(domain, f"c{n:02}", version, properties=kind) for n in range(30)]
        return states if version % 2 else states[::-1]

    async def work(versions: Sequence[int]) -> None:
        async with opened(rig.sink()) as sink:
            for version in versions:
                await written(sink, batch(version))

    await asyncio.gather(work(range(0, 12, 2)), work(range(11, 0, -2)))
    assert rig.rows(domain).keys() == {state.case_id for state in batch(11)}
    for row in rig.rows(domain).values():
        assert row.properties == batch(11)[0].properties


async def test_a_column_of_another_worker_is_cleared(rig: Rig, domain: str) -> None:
    async with opened(rig.sink()) as one, opened(rig.sink()) as other:
        await one.write([case_state(domain, version=1)])
        await other.write([case_state(domain, version=2, properties={"late": "x"})])
        await one.write([case_state(domain, version=3)])
    assert "late" not in rig.rows(domain)["c1"].properties


async def test_close_can_come_at_any_time_and_twice(rig: Rig, domain: str) -> None:
    sink = rig.sink()
    await sink.close()
    await sink.open()
    await sink.write([case_state(domain)])
    await sink.close()
    await sink.close()
    await sink.open()
    assert await sink.write([case_state(domain)]) == ["written"]
    await sink.close()


NAMES = st.sampled_from(["a", "A", "b", "order", "xmin", "cw_version"])
VALUES = st.sampled_from(["", "x", "y"])


@st.composite
def histories(draw: st.DrawFn) -> Sequence[Sequence[CaseState]]:
    """Batches of states of a few cases, in any order and with repeats."""
    numbers = st.tuples(st.sampled_from("pqr"), st.integers(0, 6))
    states: dict[tuple[str, int], CaseState] = {}
    batches = []
    for keys in draw(
        st.lists(st.lists(numbers, max_size=3, unique_by=lambda key: key[0]), max_size=8)
    ):
        for case_id, version in keys:
            if (case_id, version) not in states:
                properties = draw(st.dictionaries(NAMES, VALUES, max_size=3))
                kind = {"case_type": draw(st.sampled_from(["t", "T", ""]))}
                states[case_id, version] = case_state(
                    "d", case_id, version,
                    deleted=draw(st.integers(0, 3)) == 0, properties=properties | kind,
                )  # fmt: skip
        batches.append([states[key] for key in keys])
    return batches


async def check_history(rig: Rig, domain: str, history: Sequence[Sequence[CaseState]]) -> None:
    newest: dict[str, CaseState] = {}
    async with opened(rig.sink()) as sink:
        for batch in history:
            expected = []
            for state in batch:
                held = newest.get(state.case_id)
                fresh = held is None or state.version >= held.version
                expected.append("written" if fresh else "stale")
                if fresh:
                    newest[state.case_id] = state
            assert await sink.write([replace(state, domain=domain) for state in batch]) == expected
    if not newest:
        return
    rows, guards = rig.rows(domain), rig.guards(domain)
    assert {case_id: guard[1:] for case_id, guard in guards.items()} == {
        state.case_id: (state.version, state.deleted) for state in newest.values()
    }
    assert {
        case_id: (row.case_type, row.own["cw_version"], row.properties)
        for case_id, row in rows.items()
    } == {
        state.case_id: (state.case_type, state.version, state.properties)
        for state in newest.values()
        if not state.deleted
    }


same_rig = HealthCheck.function_scoped_fixture  # harmless: each example has a domain of its own


@pytest.mark.parametrize("rig", ["memory", "sqlite"], indirect=True)
@given(history=histories())
@settings(max_examples=40, deadline=None, suppress_health_check=[same_rig])
async def test_any_history_ends_in_the_greatest_versions(
    rig: Rig, history: Sequence[Sequence[CaseState]]
) -> None:
    await check_history(rig, f"d-{uuid.uuid4().hex}", history)


@pytest.mark.postgres
@pytest.mark.parametrize("rig", ["postgres"], indirect=True)
@given(history=histories())
@settings(max_examples=8, deadline=None, suppress_health_check=[same_rig])
async def test_some_histories_end_in_the_greatest_versions(
    rig: Rig, history: Sequence[Sequence[CaseState]]
) -> None:
    await check_history(rig, f"d-{uuid.uuid4().hex}", history)
