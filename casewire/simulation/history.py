"""A whole history: all that HQ forwards, in the order in which it processed it, and the truth."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from random import Random
from typing import Final, Literal, TypeAlias

from casewire.hq import Request
from casewire.simulation import forwards, render
from casewire.simulation.model import Case, Form
from casewire.simulation.story import (
    ACTIONS,
    Change,
    World,
    register,
    save_app,
    save_user,
    settle,
)
from casewire.truth import Comparable, TrueCase, Truth
from schemas.times import from_datetime

Format: TypeAlias = Literal["json", "xml", "mixed"]

#: Contract §5, rule 2: within this window the times of two snapshots may mislead.
WINDOW: Final = timedelta(seconds=10)

_MIXED: Final[Sequence[tuple[Comparable, ...]]] = (
    ("json",), ("json",), ("xml",), ("json", "xml"), ("xml_v1",),
)  # fmt: skip
_MIXED_LAST: Final[Sequence[tuple[Comparable, ...]]] = (("json",), ("xml",), ("json", "xml"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to make. `cases` come into being over `changes` changes in about `days` days.

    `format` is that of the case and form forwarders; `mixed` has both, and all versions of XML.
    `decidable`: only what contract §5 decides in any order of arrival (docs/design.md).
    """

    domain: str = "demo"
    cases: int = 300
    changes: int = 2000
    days: float = 30
    format: Format = "mixed"
    decidable: bool = True


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A case as HQ saved it, and in which formats it was forwarded: none if it was coalesced."""

    case: Case
    formats: tuple[Comparable, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """A change, and how its cases were forwarded."""

    change: Change
    cases: Sequence[Forwarded]


@dataclass(frozen=True, slots=True)
class History:
    """`requests` are in HQ's processing order, each once, all good; `forms` as HQ holds them."""

    requests: Sequence[Request]
    truth: Truth
    forms: Sequence[Form]


def make_history(seed: int, ends: datetime, plan: Plan) -> History:
    """Return the history of a seed. It ends at `ends`; the same arguments make the same bytes."""
    rng = Random(seed)  # noqa: S311 - it must be repeatable, not secret
    world = World.start(rng)
    changes = list(_happenings(world, plan, ends - timedelta(hours=1)))
    steps = _forwarded(rng, changes, plan)
    if plan.decidable:
        steps += _settled(world, steps, plan, ends - timedelta(hours=1))
    requests = [request for step in steps for request in _requests(rng, world.app_id, step, plan)]
    truth = Truth(
        domain=plan.domain,
        seed=seed,
        ends=from_datetime(ends),
        decidable=plan.decidable,
        cases=_true_cases(steps, plan.domain),
        changes=dict(Counter(step.change.what for step in steps)),
        requests=dict(Counter(request.kind for request in requests)),
        broken={},
    )
    return History(requests, truth, list(world.project.forms.values()))


def decided(forwarded: Sequence[Forwarded]) -> bool:
    """Whether contract §5 takes the last snapshot for the newest in any order of arrival.

    So it is if the last one beats each other by itself, and is forwarded so that all of it can be
    said. docs/design.md gives the reasons.
    """
    last = forwarded[-1]
    if last.case.gone and last.formats != ("json",):
        return False
    if last.formats == ("xml_v1",) and any(each.case.indices for each in forwarded):
        return False
    return all(_beats(last, other) for other in forwarded[:-1] if other.formats)


def _beats(last: Forwarded, other: Forwarded) -> bool:
    ahead = last.case.server_modified_on - other.case.server_modified_on
    ids, other_ids = set(last.case.xform_ids), set(other.case.xform_ids)
    if ahead > timedelta(0):
        both_json = "json" in last.formats and "json" in other.formats
        return ahead >= WINDOW or not both_json or not other_ids > ids
    if ahead < timedelta(0) or "json" not in last.formats or last.case.gone:
        return False
    return "json" not in other.formats or ids > other_ids


def _happenings(world: World, plan: Plan, ends: datetime) -> Iterator[Change]:
    actions, weights = list(ACTIONS), list(ACTIONS.values())
    yield from (Change(what="user saved", user=user) for user in world.users)
    for number, at in enumerate(_moments(world.rng, plan, ends), start=1):
        left = plan.cases - len(world.project.cases)
        due = plan.cases * number / (0.6 * plan.changes)
        if left > 0 and len(world.project.cases) < due:
            least = max(1, left - 5 * (plan.changes - number))
            yield register(world, at, least, min(left, max(5, least)))
        elif not world.live():
            yield world.rng.choice((save_app, save_user))(world, at)
        else:
            yield world.rng.choices(actions, weights)[0](world, at)


def _moments(rng: Random, plan: Plan, ends: datetime) -> list[datetime]:
    """Return when the changes are processed: single ones, and bursts as when a phone syncs."""
    mean = plan.days * 86400 / plan.changes
    gaps = [
        rng.uniform(0, 3) if rng.random() < 0.3 else rng.expovariate(1 / mean)
        for _ in range(plan.changes)
    ]
    return [ends - timedelta(seconds=sum(gaps) - passed) for passed in accumulate(gaps)]


def _forwarded(rng: Random, changes: Sequence[Change], plan: Plan) -> list[Step]:
    """Choose formats. A snapshot that a later one follows may be coalesced with it (§1.2)."""
    last = {case.case_id: case for change in changes for case in change.cases}
    steps = []
    for change in changes:
        cases = []
        for case in change.cases:
            coalesced = case is not last[case.case_id] and rng.random() < 0.1
            cases.append(Forwarded(case, () if coalesced else _formats(rng, case, plan)))
        steps.append(Step(change, cases))
    return steps


def _formats(rng: Random, case: Case, plan: Plan) -> tuple[Comparable, ...]:
    if plan.format == "json":
        return ("json",)
    if plan.format == "xml":
        return ("xml",) if rng.random() < 0.9 else ("xml_v1",)
    return ("json",) if case.gone and plan.decidable else rng.choice(_MIXED)


def _settled(world: World, steps: Sequence[Step], plan: Plan, after: datetime) -> list[Step]:
    """Return one more change, beyond the window, for each case whose last one is not decided."""
    forwarded: dict[str, list[Forwarded]] = {}
    for each in _cases(steps):
        forwarded.setdefault(each.case.case_id, []).append(each)
    undecided = [case_id for case_id in forwarded if not decided(forwarded[case_id])]
    pause = timedelta(minutes=55) / max(1, len(undecided))
    settling: list[Step] = []
    for number, case_id in enumerate(undecided):
        change = settle(world, case_id, after + WINDOW + timedelta(seconds=1) + pause * number)
        cases = [Forwarded(case, _last_formats(world.rng, plan)) for case in change.cases]
        settling.append(Step(change, cases))
    return settling


def _last_formats(rng: Random, plan: Plan) -> tuple[Comparable, ...]:
    return rng.choice(_MIXED_LAST) if plan.format == "mixed" else (plan.format,)


def _cases(steps: Iterable[Step]) -> Iterator[Forwarded]:
    return (each for step in steps for each in step.cases)


def _true_cases(steps: Sequence[Step], domain: str) -> dict[str, TrueCase]:
    return {
        each.case.case_id: TrueCase(
            comparable=min(each.formats),
            deleted=each.case.gone,
            state=render.case_object(each.case, domain),
        )
        for each in _cases(steps)
        if each.formats
    }


def _requests(rng: Random, app_id: str, step: Step, plan: Plan) -> Iterator[Request]:
    """Return what HQ forwards of a change: of a form first, then of the cases it touched."""
    change = step.change
    if change.form is not None:
        as_json = plan.format == "json" or (plan.format == "mixed" and rng.random() < 0.5)
        yield forwards.form(change.form, plan.domain, as_json=as_json)
        if rng.random() < 0.1:
            yield forwards.stub(change.form)
    for each in step.cases:
        yield from (forwards.case(each.case, format_, plan.domain) for format_ in each.formats)
        if rng.random() < 0.02:
            yield forwards.data_source(app_id, each.case)
    if change.user is not None:
        yield forwards.user(change.user, plan.domain)
    if change.location is not None:
        yield forwards.location(change.location, plan.domain)
    if change.app_id is not None:
        yield forwards.app(change.app_id)
