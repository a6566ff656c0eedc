"""What happens in a simulated project: one change after the other, drawn from a seed.

All people and places are made up.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final, TypeAlias

from casewire.simulation.model import Block, Case, Form, Index, Location, Project, User

_FIRST_NAMES: Final = ("Amber", "Birch", "Coral", "Dahlia", "Élan", "Fern", "Žito", "Ōka", "Ivy")
_LAST_NAMES: Final = ("Testwell", "Sample", "Mockford", "Muster", "Ficção", "O'Dummy & Sons")
_ANSWERS: Final = ("", "yes", "no", "12", "2.50", "a b", "naïve <&> “quoted”", "日本", "🌾")
_OFFSETS: Final = (0, 60, 330, -240)
_NOT_YET: Final = datetime.min.replace(tzinfo=UTC)

#: The properties of each type of case, and the type of the case it hangs on.
CASE_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "household": ("village", "water_source", "visited-on"),
    "person": ("dob", "gender", "phone", "note"),
    "patient": ("dob", "gender", "diagnosis", "weight"),
    "visit": ("outcome", "weight", "note"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that happened, and all that HQ saved by it. `what` names it for people."""

    what: str
    form: Form | None = None
    cases: Sequence[Case] = ()
    user: User | None = None
    location: Location | None = None
    app_id: str | None = None


@dataclass(slots=True)
class World:
    """The project, who works in it, and the random numbers that drive it."""

    rng: Random
    project: Project = field(default_factory=Project)
    users: list[User] = field(default_factory=list)
    locations: list[Location] = field(default_factory=list)
    app_id: str = ""
    last: Form | None = None

    @classmethod
    def start(cls, rng: Random) -> "World":
        users = [User(new_hex(rng), f"worker{number}") for number in range(12)]
        locations = [Location(new_hex(rng), f"village_{number}", _NOT_YET) for number in range(5)]
        app_id = new_hex(rng)
        return cls(rng=rng, users=users, locations=locations, app_id=app_id)

    def live(self) -> list[Case]:
        """Return the cases that are not gone; those of the last form come up more often."""
        live = [case for case in self.project.cases.values() if not case.gone]
        if self.last is not None and self.rng.random() < 0.3:
            recent = [case for case in live if case.case_id in self.last.case_ids]
            return recent or live
        return live


def new_id(rng: Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def new_hex(rng: Random) -> str:
    return new_id(rng).replace("-", "")


def register(world: World, at: datetime, least: int, most: int) -> Change:
    """Register `least` to `most` cases by one form: a household and members, or a visit."""
    if least == 1 and world.live() and world.rng.random() < 0.4:
        return visit(world, at)
    household, *members = (new_id(world.rng) for _ in range(world.rng.randint(least, most)))
    name = f"{world.rng.choice(_LAST_NAMES)} household"
    blocks = [_creation(world, household, "household", name)]
    for member in members:
        case_type = world.rng.choice(("person", "patient"))
        block = _creation(world, member, case_type, _person(world.rng))
        index = {"parent": Index("household", household)}
        if world.rng.random() < 0.3:
            index = {"host": Index("household", household, "extension")}
        blocks.append(replace(block, index=index))
    return _submit(world, "registration", at, blocks)


def visit(world: World, at: datetime) -> Change:
    """Create a visit and change the case that was visited, by one form."""
    visited = world.rng.choice(world.live())
    block = _creation(world, new_id(world.rng), "visit", f"Visit {world.rng.randint(1, 99)}")
    index = {"parent": Index(visited.case_type, visited.case_id)}
    touch = _block(visited.case_id, update={"last_visit": str(world.rng.randint(1, 99))})
    return _submit(world, "visit", at, [replace(block, index=index), touch])


def update(world: World, at: datetime) -> Change:
    """Set some properties, clear some; now and then several blocks for one case."""
    case = world.rng.choice(world.live())
    blocks = [_block(case.case_id, update=_answers(world, case.case_type))]
    if world.rng.random() < 0.1:
        blocks.append(_block(case.case_id, update={"note": world.rng.choice(_ANSWERS)}))
    if world.rng.random() < 0.05:
        blocks.append(_block(case.case_id))
    if world.rng.random() < 0.1:
        blocks[0] = replace(
            blocks[0], update={**blocks[0].update, "external_id": new_id(world.rng)}
        )
    return _submit(world, "follow up", at, blocks)


def rename(world: World, at: datetime) -> Change:
    """Give a case another name, and a person's another type or owner."""
    case = world.rng.choice(world.live())
    said = {"case_name": _person(world.rng)}
    if case.case_type in ("person", "patient") and world.rng.random() < 0.5:
        said["case_type"] = "patient" if case.case_type == "person" else "person"
    if world.rng.random() < 0.5:
        said["owner_id"] = world.rng.choice(world.locations).id
    return _submit(world, "transfer", at, [_block(case.case_id, update=said)])


def close(world: World, at: datetime) -> Change:
    case = world.rng.choice(world.live())
    return _submit(world, "closing", at, [replace(_block(case.case_id), close=True)])


def relate(world: World, at: datetime) -> Change:
    """Remove an index of a case, or have it point elsewhere, or add one."""
    if len(world.project.cases) == 1:
        return update(world, at)
    live = world.live()
    case = world.rng.choice(live)
    target = world.rng.choice(live)
    if target is case:
        target = next(each for each in world.project.cases.values() if each is not case)
    name = world.rng.choice(("parent", "host", "referred-by"))
    index = Index(target.case_type, target.case_id)
    held = [name for name, entry in case.indices.items() if entry.case_id]
    if held and world.rng.random() < 0.6:
        name = world.rng.choice(held)
        index = replace(case.indices[name], case_id="")
    block = replace(_block(case.case_id), index={name: index})
    return _submit(world, "relation", at, [block])


def archive(world: World, at: datetime) -> Change:
    """Archive a form: any, one that closed a case (re-opens it), or the only one of a case."""
    forms = [form for form in world.project.forms.values() if _active(world, form)]
    closing = [form for form in forms if any(block.close for block in form.blocks)]
    only = [form for form in forms if any(_only(world, form, each) for each in form.case_ids)]
    plain = [form for form in forms if not any(block.create for block in form.blocks)]
    # Without the form that created it but with others, a case lives on without type and name.
    chosen = world.rng.choices((plain, closing, only, forms), (10, 5, 3, 1))[0] or forms
    if not chosen:
        return save_user(world, at)
    form = world.rng.choice(chosen)
    return Change(what="form archived", cases=world.project.archive(form.id, at))


def _only(world: World, form: Form, case_id: str) -> bool:
    return world.project.cases[case_id].xform_ids == (form.id,)


def unarchive(world: World, at: datetime) -> Change:
    if not world.project.archived:
        return save_user(world, at)
    form_id = world.rng.choice(sorted(world.project.archived))
    return Change(what="form unarchived", cases=world.project.unarchive(form_id, at))


def edit(world: World, at: datetime) -> Change:
    """Correct a form: other answers, the same cases, the same form id and received_on."""
    forms = [form for form in world.project.forms.values() if _active(world, form)]
    if not forms:
        return save_user(world, at)
    form = world.rng.choice(forms)
    corrected = {"note": world.rng.choice(_ANSWERS), "corrected": "yes"}
    first, *others = form.blocks
    edited = replace(
        form,
        edited_on=max(at, form.received_on),
        blocks=(replace(first, update={**first.update, **corrected}), *others),
    )
    return Change(what="form edited", form=edited, cases=world.project.edit(edited))


def save_user(world: World, at: datetime) -> Change:
    return Change(what="user saved", user=world.rng.choice(world.users))


def save_location(world: World, at: datetime) -> Change:
    location = replace(world.rng.choice(world.locations), modified_on=at)
    return Change(what="location saved", location=location)


def save_app(world: World, at: datetime) -> Change:
    return Change(what="app saved", app_id=world.app_id)


def settle(world: World, case_id: str, at: datetime) -> Change:
    """Change a case once more: un-archive its form if it is gone, else set a property."""
    if world.project.cases[case_id].gone:
        form_id = world.project.forms_of(case_id)[-1]
        return Change(what="form unarchived", cases=world.project.unarchive(form_id, at))
    form = _form(world, "follow up", at, [_block(case_id, update={"checked": "yes"})])
    return Change(what="follow up", form=form, cases=world.project.submit(form))


Action: TypeAlias = Callable[[World, datetime], Change]

#: How often each thing happens once there are cases.
ACTIONS: Final[Mapping[Action, int]] = {
    update: 50,
    rename: 6,
    close: 7,
    relate: 9,
    archive: 7,
    unarchive: 2,
    edit: 6,
    save_user: 2,
    save_location: 2,
    save_app: 1,
}


def _active(world: World, form: Form) -> bool:
    """Whether a form can be archived or edited: it is not archived, nor are its cases gone."""
    return form.id not in world.project.archived and not any(
        world.project.cases[case_id].gone for case_id in form.case_ids
    )


def _block(case_id: str, update: Mapping[str, str] | None = None) -> Block:
    """Return a block whose user and time `_form` fills in."""
    return Block(case_id=case_id, user_id="", date_modified=_NOT_YET, update=update or {})


def _creation(world: World, case_id: str, case_type: str, name: str) -> Block:
    owner_id = world.rng.choice(world.locations).id
    create = {"case_type": case_type, "case_name": name, "owner_id": owner_id}
    block = _block(case_id, update=_answers(world, case_type))
    return replace(block, create=create)


def _answers(world: World, case_type: str) -> dict[str, str]:
    names = CASE_TYPES.get(case_type, ("note",))
    chosen = world.rng.sample(names, k=world.rng.randint(1, len(names)))
    return {name: world.rng.choice(_ANSWERS) for name in chosen}


def _person(rng: Random) -> str:
    return f"{rng.choice(_FIRST_NAMES)} {rng.choice(_LAST_NAMES)}"


def _submit(world: World, name: str, at: datetime, blocks: Sequence[Block]) -> Change:
    """Have a form processed at `at`; HQ may have received it some seconds before (§6.5)."""
    chance = world.rng.random()
    received_on = at
    if chance < 0.06:
        received_on = at - timedelta(seconds=world.rng.uniform(0, 20))
    elif chance < 0.10 and world.last is not None:
        received_on = world.last.received_on
    form = _form(world, name, received_on, blocks)
    world.last = form
    return Change(what=name, form=form, cases=world.project.submit(form))


def _form(world: World, name: str, received_on: datetime, blocks: Sequence[Block]) -> Form:
    """Make a form out of blocks; its device may have been offline, or its clock wrong."""
    rng = world.rng
    user = rng.choice(world.users)
    ended_on = received_on - timedelta(seconds=rng.choice((1, 60, 7200)) * rng.random())
    if rng.random() < 0.02:
        ended_on -= timedelta(days=rng.randint(-400, 1000))
    ended_on = ended_on.replace(microsecond=ended_on.microsecond // 1000 * 1000)
    return Form(
        id=new_id(rng),
        name=name,
        user_id=user.id,
        username=user.name,
        app_id=world.app_id if rng.random() < 0.97 else None,
        received_on=received_on,
        edited_on=None,
        started_on=ended_on - timedelta(seconds=rng.randint(5, 900)),
        ended_on=ended_on,
        device_offset=rng.choice(_OFFSETS),
        blocks=tuple(replace(block, user_id=user.id, date_modified=ended_on) for block in blocks),
    )
