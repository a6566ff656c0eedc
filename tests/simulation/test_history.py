"""The simulated project: its claim to be decidable, its repeatability, its disorder.

The rule of contract §5 is written down here once more, by itself and naively, so that the generator
is not judged by the code that it is to test.
"""

import random
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings, strategies as st
from lxml import etree

from casewire.hq import Request
from casewire.simulation.delivery import deliver, deserved
from casewire.simulation.history import Format, History, Plan, make_history
from casewire.truth import Truth, compare
from schemas.values import Json

ENDS = datetime(2026, 11, 22, 10, tzinfo=UTC)
NAMESPACE = "{http://commcarehq.org/case/transaction/v2}"

plans = st.builds(
    Plan,
    cases=st.integers(1, 12),
    changes=st.integers(1, 60),
    days=st.sampled_from([0.001, 0.01, 1]),
    format=st.sampled_from(["json", "xml", "mixed"]),
)


@dataclass(frozen=True)
class Seen:
    """A case snapshot as a receiver can read it; `ids` is None for XML."""

    time: datetime
    ids: frozenset[str] | None
    state: dict[str, Json]


def seen(request: Request, domain: str) -> Seen:
    time = datetime.fromisoformat(dict(request.headers)["server-modified-on"])
    if request.kind == "case_json":
        body = orjson.loads(request.body)
        return Seen(time, frozenset(body["xform_ids"]), body)
    return Seen(time, None, read_xml(request.body) | {"domain": domain} | stamped(request))


def stamped(request: Request) -> dict[str, Json]:
    return {"server_date_modified": dict(request.headers)["server-modified-on"]}


def read_xml(body: bytes) -> dict[str, Json]:
    root = etree.fromstring(body)
    ns = NAMESPACE if root.tag.startswith("{") else ""
    create = {
        child.tag.removeprefix(ns): child.text or "" for child in root.iterfind(f"{ns}create/*")
    }
    update = {
        child.tag.removeprefix(ns): child.text or "" for child in root.iterfind(f"{ns}update/*")
    }
    if not ns:
        create["case_type"] = create.pop("case_type_id")
    user_id = root.get("user_id") if ns else create.pop("user_id")
    indices = {
        child.tag.removeprefix(ns): {
            "case_id": child.text or "",
            "case_type": child.get("case_type"),
            "relationship": child.get("relationship", "child"),
        }
        for child in root.iterfind(f"{ns}index/*")
    }
    return {
        "case_id": root.get("case_id") if ns else root.findtext("case_id"),
        "date_modified": root.get("date_modified") if ns else root.findtext("date_modified"),
        "user_id": user_id,
        "closed": root.find(f"{ns}close") is not None,
        "properties": create | update,
        "indices": indices if ns else None,
    }


def replaces(new: Seen, old: Seen) -> bool:
    """Contract §5, for a snapshot that was captured after the old one."""
    if new.time != old.time:
        earlier, later = sorted((new, old), key=lambda each: each.time)
        misleading = (
            later.time - earlier.time < timedelta(seconds=10)
            and earlier.ids is not None
            and later.ids is not None
            and earlier.ids > later.ids
        )
        return misleading or new.time > old.time
    if new.ids is None or old.ids is None:
        return new.ids is not None or old.ids is None
    return not new.ids < old.ids


def folded(requests: list[Request], domain: str) -> list[bytes]:
    held: dict[str, Seen] = {}
    for request in requests:
        if request.kind.startswith("case_"):
            new = seen(request, domain)
            old = held.get(request.subject)
            if old is None or replaces(new, old):
                held[request.subject] = new
    return [
        orjson.dumps(each.state | {"deleted": each.ids == frozenset()}) for each in held.values()
    ]


@settings(max_examples=150, deadline=None)
@given(plans, st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_the_rule_finds_the_truth_of_a_decidable_history_in_any_order(
    plan: Plan, seed: int, order: random.Random
) -> None:
    history = make_history(seed, ENDS, plan)
    requests = deliver(history, seed, duplicates=0.3, broken=0)
    order.shuffle(requests)
    assert compare(history.truth, folded(requests, plan.domain)) == []


@settings(max_examples=40, deadline=None)
@given(plans, st.integers(0, 2**32))
def test_the_rule_finds_the_truth_of_a_decidable_history_backwards(plan: Plan, seed: int) -> None:
    history = make_history(seed, ENDS, plan)
    backwards = [*reversed(history.requests)]
    assert compare(history.truth, folded(backwards, plan.domain)) == []


def test_undecidable_histories_exist_and_the_rule_cannot_find_their_truth() -> None:
    """Otherwise the test above would prove nothing about `decidable`."""
    plan = Plan(cases=12, changes=200, days=0.01, decidable=False)
    histories = [make_history(seed, ENDS, plan) for seed in range(10)]
    assert any(
        compare(history.truth, folded([*reversed(history.requests)], plan.domain))
        for history in histories
    )


@pytest.fixture(scope="module")
def whole() -> History:
    return make_history(7, ENDS, Plan())


def test_a_seed_makes_the_same_bytes() -> None:
    plan = Plan(cases=20, changes=150)
    history, again = make_history(7, ENDS, plan), make_history(7, ENDS, plan)
    assert again == history
    assert deliver(again, 3) == deliver(history, 3)
    assert make_history(8, ENDS, plan).requests != history.requests


def test_a_project_has_the_cases_that_were_asked_for(whole: History) -> None:
    assert len(whole.truth.cases) == 300


@settings(max_examples=30, deadline=None)
@given(plans, st.integers(0, 2**32))
def test_every_plan_makes_its_cases(plan: Plan, seed: int) -> None:
    wanted = min(plan.cases, 5 * plan.changes)
    assert len(make_history(seed, ENDS, plan).truth.cases) >= wanted


def test_a_project_has_everything_that_can_happen(whole: History) -> None:
    happened = {
        "registration", "visit", "follow up", "transfer", "closing", "relation", "form archived",
        "form unarchived", "form edited", "user saved", "location saved", "app saved",
    }  # fmt: skip
    assert set(whole.truth.changes) == happened
    assert set(whole.truth.requests) == {
        "case_json", "case_xml", "case_xml_v1", "form_json", "form_xml", "form_stub", "user",
        "location", "app", "data_source",
    }  # fmt: skip
    cases = whole.truth.cases.values()
    assert any(case.deleted for case in cases)
    assert any(case.state["closed"] for case in cases)
    tombstones = [i for case in cases for i in case.state["indices"].values() if not i["case_id"]]
    assert tombstones
    assert {case.comparable for case in cases} == {"json", "xml", "xml_v1"}


def test_times_neither_order_nor_tell_apart_all_snapshots(whole: History) -> None:
    """Histories hold equal times and times that go back, as HQ's do (protocol §6.5)."""
    times: dict[str, list[datetime]] = {}
    for request in whole.requests:
        if request.kind == "case_json":
            times.setdefault(request.subject, []).append(seen(request, "demo").time)
    pairs = [pair for each in times.values() for pair in pairwise(each)]
    assert any(later < earlier for earlier, later in pairs)
    assert any(later == earlier for earlier, later in pairs)


def test_no_time_is_after_the_end(whole: History) -> None:
    assert all(seen(each, "demo").time <= ENDS for each in whole.requests if "case_" in each.kind)


def test_delivery_loses_nothing_and_repeats_byte_for_byte(whole: History) -> None:
    arrived = Counter(map(repr, deliver(whole, 5, duplicates=0.2, broken=0)))
    sent = Counter(map(repr, whole.requests))
    assert arrived.keys() == sent.keys()
    assert 1.1 < arrived.total() / sent.total() < 1.3


def test_without_disorder_requests_arrive_in_processing_order(whole: History) -> None:
    assert deliver(whole, 5, duplicates=0, late=0, broken=0) == list(whole.requests)


def test_broken_bodies_are_of_every_cause(whole: History) -> None:
    requests = deliver(whole, 5, broken=16)
    assert deserved(requests) == {
        "malformed_xml": 2, "malformed_json": 2, "missing_id": 4, "invalid_field": 4,
        "unknown_kind": 4,
    }  # fmt: skip


def test_the_truth_survives_its_file(whole: History) -> None:
    assert Truth.from_json(whole.truth.to_json()) == whole.truth


def test_compare_names_what_differs(whole: History) -> None:
    states = folded(list(whole.requests), "demo")
    held = orjson.loads(states[0])
    case_id = held["case_id"]
    assert compare(whole.truth, states[1:]) == [f"case {case_id}: missing"]
    stranger = orjson.dumps(held | {"case_id": "other"})
    assert compare(whole.truth, [*states, stranger]) == ["case other: not in the truth"]
    elsewhere = orjson.dumps(held | {"domain": "elsewhere", "case_id": "other"})
    assert compare(whole.truth, [*states, elsewhere]) == []
    deleted = orjson.dumps(held | {"deleted": not held["deleted"]})
    assert len(compare(whole.truth, [*states, deleted])) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("closed", False),
        ("properties", {}),
        ("indices", {"other": {"case_id": "x"}}),
        ("date_modified", None),
        ("server_date_modified", "2026-01-01T00:00:00.000000Z"),
        ("xform_ids", []),
        ("user_id", "somebody"),
    ],
)
def test_compare_sees_every_field(whole: History, field: str, value: Json) -> None:
    case_id, true = next(
        (case_id, case)
        for case_id, case in whole.truth.cases.items()
        if case.comparable == "json" and case.state["closed"] and not case.deleted
    )
    only = replace(whole.truth, cases={case_id: true})
    assert compare(only, [orjson.dumps({**true.state, "deleted": False})]) == []
    wrong = {**true.state, "deleted": False, field: value}
    assert len(compare(only, [orjson.dumps(wrong)])) == 1


@pytest.mark.parametrize("format_", ["json", "xml"])
def test_one_format_makes_bodies_of_that_format_only(format_: Format) -> None:
    history = make_history(1, ENDS, Plan(cases=20, changes=100, format=format_))
    kinds = {kind for kind in history.truth.requests if kind.startswith(("case_", "form_"))}
    assert all(
        kind.startswith((f"case_{format_}", f"form_{format_}", "form_stub")) for kind in kinds
    )


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_no_case_is_its_own_parent(seed: int) -> None:
    history = make_history(seed, ENDS, Plan(cases=12, changes=60, format="json"))
    for request in history.requests:
        if request.kind == "case_json":
            body = orjson.loads(request.body)
            parents = {index["case_id"] for index in body["indices"].values()}
            assert body["case_id"] not in parents
