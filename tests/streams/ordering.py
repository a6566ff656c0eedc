"""How often the rule of contract §5 is doubtful, and how often wrong, by a model of HQ.

    python -m tests.streams.ordering

prints the table of docs/design.md. Each history is of one case that changes every few seconds, as
when a phone syncs and somebody tidies up: what is rare in a project is all that happens here.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

from casewire.hq import Request
from casewire.simulation import forwards
from casewire.simulation.model import Block, Case, Form, Project
from schemas.case import CaseState
from streams.decode import decode
from streams.records import header
from streams.state import case_judge, change_judge
from tests.streams.made import Made, captured

What: TypeAlias = Literal["submit", "archive", "unarchive", "edit"]
Format: TypeAlias = Literal["json", "xml"]

BEGINS: Final = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW: Final = 10_000_000
WRITER: Final = "model"


@dataclass(frozen=True, slots=True)
class Step:
    """A change that HQ processes `gap` seconds after the one before.

    HQ received the form, or its edit, `late` seconds before it processed it. `which` chooses the
    form that is archived, un-archived or edited.
    """

    gap: float
    what: What = "submit"
    late: float = 0
    which: int = 0


@dataclass(frozen=True, slots=True)
class Saved:
    """What HQ forwards of a change: the form, if one was submitted or edited, and the case."""

    seconds: float
    form: Form | None
    case: Case


def play(steps: Sequence[Step]) -> Sequence[Saved]:
    """Return what HQ saves, in the order in which it processes the steps."""
    project = Project()
    saved: list[Saved] = []
    seconds = 0.0
    for number, step in enumerate(steps):
        seconds += step.gap
        form, cases = _processed(project, step, number, seconds)
        saved += [Saved(seconds, form, case) for case in cases]
    return saved


def _processed(
    project: Project, step: Step, number: int, seconds: float
) -> tuple[Form | None, Sequence[Case]]:
    """Return the form and the case, if the step changes it; the first step submits a form."""
    now = BEGINS + timedelta(seconds=seconds)
    received = now - timedelta(seconds=step.late)
    archived = sorted(project.archived)
    active = sorted(project.forms.keys() - project.archived)
    if step.what == "submit" or not project.forms:
        form = _form(number, received)
        return form, project.submit(form)
    if step.what == "unarchive":
        return None, project.unarchive(_of(archived, step), now) if archived else ()
    if not active:
        return None, ()
    if step.what == "archive":
        return None, project.archive(_of(active, step), now)
    before = project.forms[_of(active, step)]
    said = {**before.blocks[0].update, "edited": str(number)}
    blocks = (replace(before.blocks[0], update=said),)
    edited = replace(before, edited_on=received, blocks=blocks)
    return edited, project.edit(edited)


def _of(form_ids: Sequence[str], step: Step) -> str:
    return form_ids[step.which % len(form_ids)]


def _form(number: int, received_on: datetime) -> Form:
    block = Block(
        case_id="c1",
        user_id="u1",
        date_modified=BEGINS,
        create={"case_type": "patient", "case_name": "Synthetic One"},
        update={f"p{number}": "x"},
    )
    return Form(
        id=f"f{number:03}", name="visit", user_id="u1", username="worker", app_id=None,
        received_on=received_on, edited_on=None, started_on=BEGINS, ended_on=BEGINS,
        device_offset=0, blocks=(block,),
    )  # fmt: skip


def requests(saved: Saved, how: Format, *, with_forms: bool) -> Iterator[Request]:
    if with_forms and saved.form is not None:
        yield forwards.form(saved.form, "demo", as_json=how == "json")
    yield forwards.case(saved.case, how, "demo")


@dataclass(frozen=True, slots=True)
class End:
    """Whether Casewire's state says what HQ's case does, whether it is doubtful, and how often
    two snapshots were so on the way."""

    right: bool
    doubtful: bool
    doubts: int


def received(arrived: Sequence[Request], truth: Case) -> End:
    """Take requests in, in the order of their arrival, with the worker's own judges."""
    judge_snapshot = case_judge(writer=WRITER, window_microseconds=WINDOW)
    judge_block = change_judge(writer=WRITER, window_microseconds=WINDOW)
    held: bytes | None = None
    fold: bytes | None = None
    doubts = 0
    for request in arrived:
        decoded = decode(captured_request(request))
        for out in decoded.changes or (decoded.out,):
            judge = judge_block if decoded.changes else judge_snapshot
            judged = judge(Made(out.value, out.key, out.headers, "casewire.cases"), held, fold)
            if judged.publish is not None:
                held = judged.publish.value
                doubts += header(judged.publish.headers, "casewire-doubt") == "order"
            if judged.fold is not None:
                fold = judged.fold.value
    state = CaseState.from_json(held or b"")
    return End(_says(state) == dict(truth.properties), state.doubtful, doubts)


def captured_request(request: Request) -> Made:
    headers = [("content-type", request.content_type), *request.headers]
    return captured(request.body, headers=[(name, value.encode()) for name, value in headers])


def _says(state: CaseState) -> Mapping[str, object]:
    known = ("external_id", "owner_id", "case_name", "case_type", "date_opened")
    return {name: value for name, value in state.properties.items() if name not in known}


Arrival: TypeAlias = Callable[[Sequence[tuple[float, Request]], random.Random], Sequence[Request]]
"""From requests with the seconds at which they were sent to the order in which they arrive."""


def in_order(sent: Sequence[tuple[float, Request]], _: random.Random) -> Sequence[Request]:
    return [request for _, request in sent]


def twice(sent: Sequence[tuple[float, Request]], rng: random.Random) -> Sequence[Request]:
    """Every third request comes again, at any time later."""
    turns: list[tuple[float, Request]] = []
    for turn, (_, request) in enumerate(sent):
        turns.append((turn, request))
        if rng.random() < 1 / 3:
            turns.append((rng.uniform(turn, len(sent)), request))
    return [request for _, request in sorted(turns, key=_moment)]


def swapped(sent: Sequence[tuple[float, Request]], rng: random.Random) -> Sequence[Request]:
    """Every third request changes places with the next."""
    arrived = [request for _, request in sent]
    for place in range(len(arrived) - 1):
        if rng.random() < 1 / 3:
            arrived[place], arrived[place + 1] = arrived[place + 1], arrived[place]
    return arrived


def within(seconds: float) -> Arrival:
    """Every request takes up to so many seconds on its way."""

    def arrive(sent: Sequence[tuple[float, Request]], rng: random.Random) -> Sequence[Request]:
        late = [(moment + rng.uniform(0, seconds), request) for moment, request in sent]
        return [request for _, request in sorted(late, key=_moment)]

    return arrive


def _moment(turn: tuple[float, Request]) -> float:
    return turn[0]


ARRIVALS: Final[Mapping[str, Arrival]] = {
    "in order": in_order,
    "in order, some twice": twice,
    "neighbours swapped": swapped,
    "up to 1 s late": within(1),
    "up to 10 s late": within(10),
    "in any order": within(10_000),
}


CHANGES: Final[Sequence[What]] = ("submit", "edit", "archive", "unarchive")


def some_steps(rng: random.Random) -> Sequence[Step]:
    """Draw the history of a case of 2 to 8 changes within seconds.

    Of ten changes seven are forms, of which every third was received before what was processed
    before it; one is an edit, and two archive or un-archive a form.
    """
    steps = [Step(1)]
    for _ in range(rng.randint(1, 7)):
        what = rng.choices(CHANGES, (7, 1, 1.5, 0.5))[0]
        late = rng.uniform(0, 9) if what == "submit" and rng.random() < 1 / 3 else 0
        steps.append(Step(rng.uniform(0.1, 4), what, late, rng.randrange(8)))
    return steps


def measured(
    arrival: Arrival, how: Format, *, with_forms: bool, cases: int, seed: int = 1
) -> Mapping[str, float]:
    """Return shares of cases: doubtful in the end, wrong in the end, wrong and not doubtful."""
    rng = random.Random(seed)  # noqa: S311 - it must be repeatable, not secret
    counts = Counter[str]()
    for _ in range(cases):
        saved = play(some_steps(rng))
        sent = [
            (each.seconds, request)
            for each in saved
            for request in requests(each, how, with_forms=with_forms)
        ]
        end = received(arrival(sent, rng), saved[-1].case)
        counts["disputed"] += end.doubts > 0
        counts["doubtful"] += end.doubtful
        counts["wrong"] += not end.right
        counts["wrong, not doubtful"] += not end.right and not end.doubtful
    return {name: counts[name] / cases for name in COLUMNS}


COLUMNS: Final = ("disputed", "doubtful", "wrong", "wrong, not doubtful")
CASES: Final = 2000


def main() -> None:
    print(f"| arrival | forwarded | {' | '.join(COLUMNS)} |")  # noqa: T201
    print("| --- | --- " + "| ---: " * len(COLUMNS) + "|")  # noqa: T201
    formats: Sequence[tuple[Format, bool]] = (
        ("json", False), ("json", True), ("xml", False), ("xml", True),
    )  # fmt: skip
    for name, arrival in ARRIVALS.items():
        for how, with_forms in formats:
            shares = measured(arrival, how, with_forms=with_forms, cases=CASES)
            cells = " | ".join(f"{100 * share:.1f} %" for share in shares.values())
            forwarded = how.upper() + (" and forms" if with_forms else "")
            print(f"| {name} | {forwarded} | {cells} |")  # noqa: T201


if __name__ == "__main__":
    main()
