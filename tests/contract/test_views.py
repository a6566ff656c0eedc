"""The views beside tables: what is typed, and who is whose parent."""

import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.contract.rigs import PARENT, PostgresRig, SqliteRig, case_state, form_state, opened

pytestmark = pytest.mark.anyio

Rig = SqliteRig | PostgresRig
DATABASES = pytest.mark.parametrize(
    "rig", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)


def shown(value: Any) -> Any:
    """Return a value as plain as SQLite has it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value


def column(rig: Rig, domain: str, text: str) -> Sequence[Any]:
    return [shown(row[0]) for row in rig.query(domain, text)]


SAMPLES = [
    ("number", "2", ["-0.5", "0", "12.25"], ["", "x", "007", "1.", "1e3", "1.2.3", "--1", "1-2"]),
    ("date", "2026-11-22", ["2024-02-29", "0001-01-01"],
     ["", "2025-02-29", "2026-04-31", "0000-01-01", "2026-1-1", "x", "2026-11-22 "]),
    ("latitude", "1.5 2.5 3 4", ["-89.25 179.5", "0.0 0.0 0 0"], ["", "1.5", "95.0 1.0", "1 2 3"]),
    ("time", "2026-11-22T10:00:00Z",
     ["2026-11-22T10:00:00.000+03", "2026-11-22T10:00:00.5-02:30", "2026-11-22T10:00:00.25",
      "2026-11-22 10:00", "2026-11-22T10:00:00+0530"],
     ["", "2026-02-30T10:00:00Z", "2026-11-22T24:00:00Z", "2026-11-22T10:61:00Z", "10:00"]),
]  # fmt: skip
TIMES = [
    "2026-11-22T07:00:00.000Z", "2026-11-22T12:30:00.500Z", "2026-11-22T10:00:00.250Z",
    "2026-11-22T10:00:00.000Z", "2026-11-22T04:30:00.000Z",
]  # fmt: skip


@DATABASES
@pytest.mark.parametrize(("kind", "first", "good", "bad"), SAMPLES)
async def test_a_view_casts_what_parses_and_has_null_for_the_rest(
    rig: Rig, domain: str, kind: str, first: str, good: Sequence[str], bad: Sequence[str]
) -> None:
    async with opened(rig.sink()) as sink:
        await sink.write([case_state(domain, "0", properties={"p": first})])
        texts = [*good, *bad]
        states = [case_state(domain, f"c{n:02}", properties={"p": t}) for n, t in enumerate(texts)]
        assert await sink.write(states) == ["written"] * len(states)
    query = f"SELECT p__{kind} FROM case_patient_typed WHERE cw_case_id <> '0' ORDER BY cw_case_id"  # noqa: S608
    values = column(rig, domain, query)
    assert values[len(good) :] == [None] * len(bad)
    expected: Sequence[Any] = {
        "number": [float(text) for text in good] if kind == "number" else [],
        "date": good,
        "latitude": [float(text.split()[0]) for text in good] if kind == "latitude" else [],
        "time": TIMES,
    }[kind]
    assert [float(v) if kind == "number" else v for v in values[: len(good)]] == expected
    texts_query = "SELECT p FROM case_patient_typed WHERE cw_case_id <> '0' ORDER BY cw_case_id"
    assert column(rig, domain, texts_query) == texts


@DATABASES
@given(texts=st.lists(st.text("0123456789-+.:TZ \n٣", max_size=24), min_size=1, max_size=20))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_no_value_is_in_the_way_of_a_view(rig: Rig, texts: Sequence[str]) -> None:
    domain = f"d-{uuid.uuid4().hex}"
    kinds = {"n": "1", "d": "2026-11-22", "t": "2026-11-22T10:00:00Z", "g": "1.5 2.5 3 4"}
    states = [
        case_state(domain, f"c{number}", properties=dict.fromkeys(kinds, text))
        for number, text in enumerate(texts)
    ]
    async with opened(rig.sink()) as sink:
        await sink.write([case_state(domain, "first", properties=kinds)])
        await sink.write(states)
    typed = ["n__number", "d__date", "t__time", "g__latitude", "g__longitude"]
    query = f"SELECT {', '.join(typed)} FROM case_patient_typed"  # noqa: S608
    assert len(rig.query(domain, query)) == len(texts) + 1


@DATABASES
async def test_a_view_grows_with_its_table_and_what_is_built_on_it_stays(
    rig: Rig, domain: str
) -> None:
    async with opened(rig.sink()) as sink:
        await sink.write([case_state(domain, properties={"age": "41"})])
        if isinstance(rig, PostgresRig):
            rig.run(
                domain,
                "CREATE VIEW report AS SELECT age__number * 2 AS twice FROM case_patient_typed",
            )
        new = {"age": "41", "late": "x", "born": "2026-11-22", "age__number": "mine"}
        await sink.write([case_state(domain, version=2, properties=new)])
    query = "SELECT age, age__number, late, born__date FROM case_patient_typed"
    ((age, number, late, born),) = rig.query(domain, query)
    assert (age, float(number), late, shown(born)) == ("41", 41.0, "x", "2026-11-22")
    if isinstance(rig, PostgresRig):
        assert column(rig, domain, "SELECT twice FROM report") == [82]


@DATABASES
async def test_repeats_of_a_form_have_typed_views_too(rig: Rig, domain: str) -> None:
    form = {"n": "1", "visit": [{"weight": {"@unit": "kg", "#text": "5.5"}}, {"weight": "light"}]}
    async with opened(rig.sink()) as sink:
        await sink.write([form_state(domain, form=form)])
    views = column(rig, domain, "SELECT name FROM cw_names WHERE kind = 'view' ORDER BY name")
    assert [view.rpartition("_")[2] for view in views] == ["typed", "typed"]
    query = f"SELECT weight__number FROM {views[0]} ORDER BY cw_path"  # noqa: S608
    assert [value and float(value) for value in column(rig, domain, query)] == [5.5, None]


@DATABASES
async def test_every_index_has_a_view_of_children_and_parents(rig: Rig, domain: str) -> None:
    mother = {"mother": {"case_type": "patient", "case_id": "c2", "relationship": "extension"}}
    odd = {"a'/\"b": {"case_type": "t'", "case_id": "c9", "relationship": "child"}}
    async with opened(rig.sink()) as sink:
        await sink.write(
            [
                case_state(domain, "c1", indices=PARENT),
                case_state(domain, "c2", indices={**PARENT, **mother, **odd}),
                case_state(domain, "c3", indices=None),
            ]
        )
    query = "SELECT cw_child_id, cw_parent_id, cw_index, cw_relationship FROM {} ORDER BY 1"
    assert rig.query(domain, query.format("patient_of_household")) == [
        ("c1", "h1", "parent", "child"),
        ("c2", "h1", "parent", "child"),
    ]
    assert rig.query(domain, query.format("patient_of_patient_as_mother")) == [
        ("c2", "c2", "mother", "extension")
    ]
