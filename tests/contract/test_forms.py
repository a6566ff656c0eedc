"""What every sink that has tables does with forms: a row a form, and one for each of a repeat."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from msgspec.structs import replace

from schemas.errors import RejectedRowsError
from schemas.form import FormState
from schemas.values import Json
from sinks.answers import Place, placed
from sinks.guard import OnDelete
from tests.contract.rigs import Rig, State, StoredForm, case_state, form_state, opened
from tests.contract.test_sink import write, written

pytestmark = pytest.mark.anyio


def visits(*drugs: str) -> Mapping[str, Json]:
    """Return answers as HQ gives them: one visit is an object, several are a list."""
    each = [{"drug": drug} for drug in drugs]
    return {"visit": each[0] if len(each) == 1 else each} if each else {}


def drugs(form: StoredForm) -> Sequence[str]:
    rows = sorted(form.repeats.get("visit", {}).items(), key=lambda row: row[0].ordinal)
    return [texts["drug"] for _, texts in rows]


async def test_a_form_becomes_a_row_of_its_xmlns_table(rig: Rig, domain: str) -> None:
    answers = {"name": "Ada", "group": {"age": "41"}, "case": {"@case_id": "c1", "update": {}}}
    state = form_state(domain, form=answers, build_id="b1", version=1)
    assert await write(rig, state) == ["written"]
    form = rig.forms(domain)["f1"]
    assert form.xmlns == "http://example.org/visit"
    assert form.texts == {"name": "Ada", "group/age": "41", "case/@case_id": "c1"}
    assert form.repeats == {}
    assert form.own == {
        "cw_domain": domain,
        "cw_form_id": "f1",
        "cw_xmlns": "http://example.org/visit",
        "cw_name": "Home Visit",
        "cw_app_id": "a1",
        "cw_build_id": "b1",
        "cw_received_on": "2026-11-22T10:00:00.000001Z",
        "cw_time_start": "2026-11-22T09:58:00.000000Z",
        "cw_username": "tester",
        "cw_metadata": {"username": "tester", "timeStart": "2026-11-22T09:58:00.000000Z"},
        "cw_attachments": {},
        "cw_version": 1,
        "cw_deleted": False,
    }


async def test_cases_and_forms_of_one_batch_end_in_their_order(rig: Rig, domain: str) -> None:
    await write(rig, form_state(domain, "same", 5), case_state(domain, "same", 5))
    batch: list[State] = [
        form_state(domain, "same", 4), case_state(domain, "same", 6), form_state(domain, "f2", 1),
        case_state(domain, "c2", 1),
    ]  # fmt: skip
    assert await write(rig, *batch) == ["stale", "written", "written", "written"]
    assert rig.rows(domain).keys() == {"same", "c2"}
    assert rig.forms(domain).keys() == {"same", "f2"}


async def test_a_version_replaces_the_rows_of_the_one_before(rig: Rig, domain: str) -> None:
    async with opened(rig.sink()) as sink:
        for version, given_drugs in enumerate(["abc", "de", "f", "", "gh"]):
            state = form_state(domain, version=version, form=visits(*given_drugs))
            assert await sink.write([state]) == ["written"]
            assert drugs(rig.forms(domain)["f1"]) == list(given_drugs)
            assert await sink.write([state]) == ["written"]
            assert drugs(rig.forms(domain)["f1"]) == list(given_drugs)


async def test_an_older_version_changes_no_row_of_a_repeat(rig: Rig, domain: str) -> None:
    await write(rig, form_state(domain, version=5, form=visits("a", "b")))
    before = rig.forms(domain)
    old = form_state(domain, version=4, form=visits("x", "y", "z"))
    assert await write(rig, old, form_state(domain, "f2", form=visits("c"))) == ["stale", "written"]
    assert rig.forms(domain)["f1"] == before["f1"]
    assert drugs(rig.forms(domain)["f2"]) == ["c"]


async def test_one_object_is_a_row_wherever_a_list_was_seen(rig: Rig, domain: str) -> None:
    async with opened(rig.sink()) as sink:
        await sink.write([form_state(domain, "before", form=visits("a"))])
        assert rig.forms(domain)["before"].texts == {"visit/drug": "a"}
        await sink.write([form_state(domain, "list", form=visits("b", "c"))])
        await sink.write([form_state(domain, "after", form=visits("d"))])
    forms = rig.forms(domain)
    assert {form_id: drugs(form) for form_id, form in forms.items()} == {
        "before": ["a"], "list": ["b", "c"], "after": ["d"],
    }  # fmt: skip
    assert all(form.texts == {} for form in forms.values())


async def test_repeats_in_repeats_that_were_groups(rig: Rig, domain: str) -> None:
    """An inner repeat is known first, then the outer one; rows say what they are in."""
    one = {"home": {"person": {"name": "Ada", "dose": [{"ml": "1"}, {"ml": "2"}]}}}
    two = {"home": {"person": [{"name": "Bo"}, {"name": "Cy", "dose": {"ml": "3"}}]}}
    async with opened(rig.sink()) as sink:
        await sink.write([form_state(domain, "one", form=one)])
        assert rig.forms(domain)["one"].repeats.keys() == {"home/person/dose"}
        await sink.write([form_state(domain, "two", form=two)])
    forms = rig.forms(domain)
    first, second = "home[1]/person[1]", "home[1]/person[2]"
    assert forms["one"].repeats == {
        "home/person": {Place(first, 1, ""): {"name": "Ada"}},
        "home/person/dose": {
            Place(f"{first}/dose[1]", 1, first): {"ml": "1"},
            Place(f"{first}/dose[2]", 2, first): {"ml": "2"},
        },
    }
    assert forms["two"].repeats == {
        "home/person": {Place(first, 1, ""): {"name": "Bo"}, Place(second, 2, ""): {"name": "Cy"}},
        "home/person/dose": {Place(f"{second}/dose[1]", 1, second): {"ml": "3"}},
    }


@pytest.mark.parametrize("on_delete", ["delete", "mark"])
async def test_an_archived_form_is_gone_and_can_come_back(
    rig: Rig, domain: str, on_delete: OnDelete
) -> None:
    await write(rig, form_state(domain, version=1, form=visits("a", "b")))
    gone = form_state(domain, version=3, archived=True, form={"@xmlns": ""})
    assert await write(rig, gone, on_delete=on_delete) == ["written"]
    if on_delete == "delete":
        assert rig.forms(domain) == {}
    else:
        form = rig.forms(domain)["f1"]
        assert (form.own["cw_deleted"], form.own["cw_version"]) == (True, 1)
        assert drugs(form) == ["a", "b"]
    assert await write(rig, form_state(domain, version=2), on_delete=on_delete) == ["stale"]
    again = form_state(domain, version=4, form=visits("c"))
    assert await write(rig, again, on_delete=on_delete) == ["written"]
    form = rig.forms(domain)["f1"]
    assert (form.own["cw_deleted"], drugs(form)) == (False, ["c"])


async def test_a_form_that_changes_its_xmlns_has_rows_in_one_place(rig: Rig, domain: str) -> None:
    await write(rig, form_state(domain, version=1, form=visits("a", "b")))
    other = form_state(domain, version=2, form={"@xmlns": "http://example.org/other", "x": "1"})
    await write(rig, other)
    form = rig.forms(domain)["f1"]
    assert (form.xmlns, form.texts, form.repeats) == ("http://example.org/other", {"x": "1"}, {})


async def test_what_xml_cannot_say_wipes_nothing(rig: Rig, domain: str) -> None:
    attachments = {"form.xml": {"url": "https://www.example.org/form.xml"}}
    await write(rig, form_state(domain, version=1, build_id="b1", attachments=attachments))
    await write(rig, form_state(domain, version=2, attachments=None, form={"x": "1"}))
    form = rig.forms(domain)["f1"]
    assert (form.own["cw_build_id"], form.own["cw_attachments"]) == ("b1", attachments)
    assert form.texts == {"x": "1"}


async def test_a_bad_form_is_named_and_the_others_can_be_written(rig: Rig, domain: str) -> None:
    good = [form_state(domain, f"f{n}", form=visits("a", "b")) for n in range(4)]
    bad = form_state(domain, "bad", form={"group": {"note": ["x", "\ud800"]}})
    async with opened(rig.sink()) as sink:
        with pytest.raises(RejectedRowsError) as refused:
            await sink.write([*good[:2], bad, *good[2:]])
        why = {place: (each.cause, each.path) for place, each in refused.value.rows.items()}
        assert why == {2: ("invalid_field", "form.group")}
        assert await sink.write(good) == ["written"] * 4
    forms = rig.forms(domain)
    assert {form_id: drugs(form) for form_id, form in forms.items()} == {
        state.id: ["a", "b"] for state in good
    }


async def test_more_answers_than_a_table_has_columns(rig: Rig, domain: str) -> None:
    many = {f"q{number:04}": "" for number in range(1500)}
    await write(rig, form_state(domain, form=many | {"r": [many, {"q0001": "x"}]}))
    form = rig.forms(domain)["f1"]
    assert form.texts == many
    assert list(form.repeats["r"].values()) == [many, {"q0001": "x"}]


async def test_names_of_answers_that_no_database_takes(rig: Rig, domain: str) -> None:
    names = ["order", "Foo", "foo", "xmin", "cw_path", "'", '"', "%s", "n" * 100, "🙂", "a b", "/"]
    one = dict.fromkeys(names, "x")
    state = form_state(domain, form={name: {**one, "r": [one, one]} for name in names})
    await write(rig, state)
    form = rig.forms(domain)["f1"]
    assert (len(form.texts), len(form.repeats)) == (len(names) ** 2, len(names))
    assert [len(rows) for rows in form.repeats.values()] == [2] * len(names)
    await write(rig, replace(state, state_version=2, form={**state.form, "'": [{"Foo": "y"}] * 2}))
    assert len(rig.forms(domain)["f1"].repeats["'"]) == 2


async def test_workers_that_find_repeats_at_once(rig: Rig, domain: str) -> None:
    """Objects that one of them writes while others find that they are repeats are not lost."""
    rounds = 6

    async def work(worker: int) -> None:
        async with opened(rig.sink()) as sink:
            for batch in range(rounds):
                form = {
                    f"r{path}": [{"x": "1"}, {"x": "2"}] if path <= batch == worker else {"x": "1"}
                    for path in range(rounds)
                }
                await written(
                    sink, [form_state(domain, f"{worker}-{n}", batch, form=form) for n in range(5)]
                )

    await asyncio.gather(*(work(worker) for worker in range(4)))
    forms = rig.forms(domain)
    assert len(forms) == 20
    repeats = {path for form in forms.values() for path in form.repeats}
    for form in forms.values():
        assert form.repeats.keys() == repeats
        assert form.texts.keys() == {f"r{path}/x" for path in range(rounds)} - {
            f"{path}/x" for path in repeats
        }


FORM_NAMES = st.sampled_from(["a", "b", "A", "@x", "#text"])
ANSWERS = st.recursive(
    st.sampled_from(["", "x", "y"]),
    lambda inner: (
        st.dictionaries(FORM_NAMES, inner, max_size=3) | st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def histories(draw: st.DrawFn) -> Sequence[Sequence[FormState]]:
    """Batches of states of a few forms, in any order and with repeats."""
    numbers = st.tuples(st.sampled_from("pq"), st.integers(0, 5))
    states: dict[tuple[str, int], FormState] = {}
    batches = []
    for keys in draw(
        st.lists(st.lists(numbers, max_size=2, unique_by=lambda key: key[0]), max_size=8)
    ):
        for form_id, version in keys:
            if (form_id, version) not in states:
                answers = draw(st.dictionaries(FORM_NAMES, ANSWERS, max_size=3))
                xmlns = {"@xmlns": draw(st.sampled_from(["u", "u", "u", "v"]))}
                states[form_id, version] = form_state(
                    "d", form_id, version, archived=draw(st.integers(0, 5)) == 0,
                    form=answers | xmlns,
                )  # fmt: skip
        batches.append([states[key] for key in keys])
    return batches


async def check_history(rig: Rig, domain: str, history: Sequence[Sequence[FormState]]) -> None:
    newest: dict[str, FormState] = {}
    lists: dict[str, set[str]] = {}
    async with opened(rig.sink()) as sink:
        for batch in history:
            for state in batch:
                held = newest.get(state.id)
                if held is None or state.state_version >= held.state_version:
                    newest[state.id] = state
                if not state.archived:
                    lists.setdefault(state.xmlns, set()).update(placed(state.form, ()).repeats)
            await sink.write([replace(state, domain=domain) for state in batch])
    living = [state for state in newest.values() if not state.archived]
    forms = rig.forms(domain) if newest else {}
    assert {
        form_id: (form.xmlns, form.own["cw_version"], form.texts, form.repeats)
        for form_id, form in forms.items()
    } == {state.id: expected(state, lists[state.xmlns]) for state in living}


def expected(
    state: FormState, lists: set[str]
) -> tuple[str, int, Mapping[str, str], Mapping[str, Mapping[Place, Mapping[str, str]]]]:
    found = placed(state.form, lists)
    repeats = {
        path: {each.place: each.texts for each in rows}
        for path, rows in found.repeats.items()
        if rows
    }
    return state.xmlns, state.state_version, found.texts, repeats


same_rig = HealthCheck.function_scoped_fixture  # harmless: each example has a domain of its own


@pytest.mark.parametrize("rig", ["sqlite"], indirect=True)
@given(history=histories())
@settings(max_examples=60, deadline=None, suppress_health_check=[same_rig])
async def test_any_history_ends_in_the_rows_of_the_newest(
    rig: Rig, history: Sequence[Sequence[FormState]]
) -> None:
    await check_history(rig, f"d-{uuid.uuid4().hex}", history)


@pytest.mark.postgres
@pytest.mark.parametrize("rig", ["postgres"], indirect=True)
@given(history=histories())
@settings(max_examples=10, deadline=None, suppress_health_check=[same_rig])
async def test_some_histories_end_in_the_rows_of_the_newest(
    rig: Rig, history: Sequence[Sequence[FormState]]
) -> None:
    await check_history(rig, f"d-{uuid.uuid4().hex}", history)
