"""How CommCare HQ keeps cases: pure rules, and a project that holds forms and cases.

Sources: protocol.md §6.5, §6.6 and §7, and `form_processor/backends/sql/update_strategy.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import reduce
from typing import Final, Literal

#: What a case block may set that is not a dynamic property.
KNOWN_PROPERTIES: Final = frozenset({"case_type", "case_name", "owner_id", "external_id"})


@dataclass(frozen=True, slots=True)
class User:
    """A mobile worker."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Location:
    """A place that owns cases."""

    id: str
    name: str
    modified_on: datetime


@dataclass(frozen=True, slots=True)
class Index:
    """A relation to another case; an empty `case_id` says that it was removed."""

    case_type: str
    case_id: str
    relationship: Literal["child", "extension"] = "child"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A case block of a form, applied in the order create, update, close, index (§7)."""

    case_id: str
    user_id: str
    date_modified: datetime
    create: Mapping[str, str] = field(default_factory=dict)
    update: Mapping[str, str] = field(default_factory=dict)
    index: Mapping[str, Index] = field(default_factory=dict)
    close: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form as HQ holds it. `name` tells its kind, `device_offset` its zone in minutes."""

    id: str
    name: str
    user_id: str
    username: str
    app_id: str | None
    received_on: datetime
    edited_on: datetime | None
    started_on: datetime
    ended_on: datetime
    device_offset: int
    blocks: Sequence[Block]

    @property
    def server_time(self) -> datetime:
        """The time that HQ gives to the cases that this form changes (§6.5)."""
        return max(self.received_on, self.edited_on or self.received_on)

    @property
    def case_ids(self) -> list[str]:
        return list(dict.fromkeys(block.case_id for block in self.blocks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A case at one moment. `indices` keeps removed ones. `server_modified_on` can go back."""

    case_id: str
    server_modified_on: datetime
    date_modified: datetime | None = None
    user_id: str = ""
    case_type: str = ""
    name: str = ""
    owner_id: str = ""
    external_id: str = ""
    date_opened: datetime | None = None
    closed: bool = False
    date_closed: datetime | None = None
    xform_ids: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    indices: Mapping[str, Index] = field(default_factory=dict)

    @property
    def gone(self) -> bool:
        """Whether no form is left that touched it: HQ deletes such a case (§6.6)."""
        return not self.xform_ids


def apply_block(case: Case, block: Block) -> Case:
    """Return the case after a block: blank known properties and unknown removals do nothing."""
    said = {**block.create, **block.update}
    dynamic = {key: value for key, value in block.update.items() if key not in KNOWN_PROPERTIES}
    index = {
        name: entry for name, entry in block.index.items() if entry.case_id or name in case.indices
    }
    changed = replace(
        case,
        case_type=said.get("case_type") or case.case_type,
        name=said.get("case_name") or case.name,
        owner_id=said.get("owner_id") or case.owner_id,
        external_id=said.get("external_id") or case.external_id,
        user_id=block.user_id or case.user_id,
        date_modified=max(case.date_modified or block.date_modified, block.date_modified),
        properties={**case.properties, **dynamic},
        indices={**case.indices, **index},
        closed=case.closed or block.close,
        date_closed=block.date_modified if block.close else case.date_closed,
    )
    return replace(
        changed,
        date_opened=changed.date_opened or changed.date_modified,
        owner_id=changed.owner_id or block.user_id,
    )


def apply_form(case: Case, form: Form) -> Case:
    """Return the case after all blocks of the form that are for it."""
    blocks = (block for block in form.blocks if block.case_id == case.case_id)
    changed = reduce(apply_block, blocks, case)
    return replace(
        changed,
        xform_ids=(*case.xform_ids, form.id),
        server_modified_on=form.server_time,
    )


def rebuilt(case_id: str, forms: Iterable[Form], at: datetime) -> Case:
    """Return the case made anew from forms in processing order; without any it is gone."""
    case = reduce(apply_form, forms, Case(case_id=case_id, server_modified_on=at))
    return replace(case, server_modified_on=at, date_modified=case.date_modified or at)


class Project:
    """Forms and cases of a project space. Every change returns the cases that HQ then saved."""

    def __init__(self) -> None:
        self.forms: dict[str, Form] = {}
        self.cases: dict[str, Case] = {}
        self.archived: set[str] = set()
        self._touched: dict[str, list[str]] = {}

    def submit(self, form: Form) -> list[Case]:
        """Process a form that is new."""
        self.forms[form.id] = form
        saved = []
        for case_id in form.case_ids:
            self._touched.setdefault(case_id, []).append(form.id)
            blank = Case(case_id=case_id, server_modified_on=form.server_time)
            self.cases[case_id] = apply_form(self.cases.get(case_id, blank), form)
            saved.append(self.cases[case_id])
        return saved

    def archive(self, form_id: str, at: datetime) -> list[Case]:
        self.archived.add(form_id)
        return self._rebuild(self.forms[form_id].case_ids, at)

    def unarchive(self, form_id: str, at: datetime) -> list[Case]:
        self.archived.remove(form_id)
        return self._rebuild(self.forms[form_id].case_ids, at)

    def edit(self, form: Form) -> list[Case]:
        """Replace a form by one of the same id that touches the same cases."""
        self.forms[form.id] = form
        return self._rebuild(form.case_ids, form.server_time)

    def forms_of(self, case_id: str) -> list[str]:
        """Return the ids of the forms that touched a case, archived ones too, as processed."""
        return self._touched[case_id]

    def _rebuild(self, case_ids: Iterable[str], at: datetime) -> list[Case]:
        saved = []
        for case_id in case_ids:
            left = (
                self.forms[form_id]
                for form_id in self._touched[case_id]
                if form_id not in self.archived
            )
            self.cases[case_id] = rebuilt(case_id, left, at)
            saved.append(self.cases[case_id])
        return saved
