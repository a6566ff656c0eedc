"""Cases known only from forms: what their case blocks say, folded into a state (contract §5). Pure.

A fold keeps what each form says, so that any order of arrival and any repetition ends in the same
state, and so that an edited form's new version takes the place of the old one. A state is made of
it by applying the blocks by (`received_on`, form id, ordinal) as HQ does (protocol.md §7).

Of a case whose state has become null it keeps a mark (streams/tombstones.py).

It stays small: of all but the newest forms (`detailed`), what later blocks among them have said
otherwise is forgotten. (Should such a form be edited so late, what its new version no longer says
cannot give way to what was forgotten.) Once there is a snapshot, a fold holds no more than the ids
of the forms that the snapshot does not know yet.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from schemas.case import CaseEvent, CaseState, Index
from schemas.case_change import CaseChange
from schemas.markup import text_of
from schemas.values import Json
from streams.compact import Capture, Outcome, same_content
from streams.tombstones import Gone

DETAILED_FORMS: Final = 20
UNSEEN_FORMS: Final = 20

#: What a block does not overwrite with a blank.
_KNOWN: Final = frozenset({"case_type", "case_name", "owner_id", "external_id", "date_opened"})


class Said(msgspec.Struct, frozen=True, array_like=True):
    """What one block says and no later one is known to say otherwise; `at` is its time."""

    at: str | None
    user_id: str
    properties: Mapping[str, Json]
    index: Mapping[str, Index]
    close: bool


class FormSaid(msgspec.Struct, frozen=True, array_like=True):
    """The newest version of a form, as far as it is about this case.

    A block is None if it has not come yet, or if nothing of what it says counts any more.
    """

    received_on: str | None
    edited_on: str | None
    captured_id: str
    blocks: Sequence[Said | None]


class CaseFold(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a case from forms, by form id. `version` only grows.

    `gone` counts while there is no state: it is what was known before that became null.
    """

    version: int
    forms: Mapping[str, FormSaid]
    gone: Gone | None = None

    @classmethod
    def from_json(cls, value: bytes) -> "CaseFold":
        return msgspec.json.decode(value, type=cls)

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)


Entry: TypeAlias = tuple[str, FormSaid]
"""A form's id and what it says."""


@dataclass(frozen=True, slots=True)
class Folded:
    """How a change ended, the fold to hold from now on, and the state to publish, if any."""

    outcome: Outcome
    fold: CaseFold | None
    state: CaseState | None = None


def fold_change(
    state: CaseState | None,
    fold: CaseFold | None,
    change: CaseChange,
    capture: Capture,
    *,
    detailed: int = DETAILED_FORMS,
) -> Folded:
    """Judge a case block against the state and the fold that are held for its case.

    The state is made of the fold each time and published if it differs from the one held: so it is
    right also where a crash left the fold ahead of the state.
    """
    if state is not None and state.source == "snapshot":
        return _beside_snapshot(state, fold, change, capture)
    forms = fold.forms if fold is not None else {}
    before = forms.get(change.form_id)
    if before is not None and _order_of_version(before) > (change.edited_on or "", capture.id):
        return Folded("stale", fold)
    entries = {**forms, change.form_id: _with_block(before, change, capture)}
    after = _with_forms(fold, dict(_pruned(_in_order(entries), detailed)), capture)
    made = state_of(after, change, capture, state)
    if state is not None and same_content(made, state):
        again = before is not None and before.captured_id != capture.id
        return Folded("duplicate" if again else "applied", after)
    return Folded("applied", after, made)


def unseen_forms(state: CaseEvent, fold: CaseFold | None) -> Mapping[str, FormSaid]:
    """Return the forms that a snapshot does not know and that were received after it was made."""
    forms = fold.forms.items() if fold is not None else ()
    return {form_id: said for form_id, said in forms if _unseen(state, form_id, said.received_on)}


def with_mark(fold: CaseFold | None, state: CaseState) -> CaseFold:
    """Return the fold of a gone case whose state is to become null."""
    gone = Gone.of(state)
    if fold is not None and fold.gone == gone:
        return fold
    return CaseFold(max(fold.version + 1 if fold is not None else 0, gone.version), {}, gone)


def state_of(
    fold: CaseFold, about: CaseChange, capture: Capture, held: CaseState | None
) -> CaseState:
    """Return the state that forms make, in the shape of a snapshot; `held` is the one before."""
    entries = _in_order(fold.forms)
    said = [block for _, form in entries for block in form.blocks if block is not None]
    return CaseState(
        domain=about.domain,
        case_id=about.case_id,
        user_id=_last_user(said) or None,
        closed=any(block.close for block in said),
        xform_ids=[form_id for form_id, _ in entries],
        date_closed=next((block.at for block in reversed(said) if block.close), None),
        date_modified=_latest_time(said),
        server_date_modified=entries[-1][1].received_on,
        properties=_properties(said),
        indices=_indices(said),
        attachments=None,
        source="forms",
        version=max(held.version + 1 if held is not None else 0, capture.microseconds),
        captured_id=capture.id,
        deleted=False,
        doubtful=False,
    )


def _beside_snapshot(
    state: CaseState, fold: CaseFold | None, change: CaseChange, capture: Capture
) -> Folded:
    """Judge a block of a case that has a snapshot: it can only make that doubtful."""
    unseen = {
        form_id: msgspec.structs.replace(said, blocks=[])
        for form_id, said in unseen_forms(state, fold).items()
    }
    before = unseen.get(change.form_id)
    news = _unseen(state, change.form_id, change.received_on)
    if news and before is None:
        unseen[change.form_id] = FormSaid(change.received_on, change.edited_on, capture.id, [])
    newest = dict(_in_order(unseen)[-UNSEEN_FORMS:])
    marked = fold is not None and fold.gone is not None
    after = _with_forms(fold, newest, capture) if newest or marked else None
    if not news:
        return Folded("stale", after)
    if not state.doubtful:
        doubtful = msgspec.structs.replace(state, version=state.version + 1, doubtful=True)
        return Folded("applied", after, doubtful)
    again = before is not None and before.captured_id != capture.id
    return Folded("duplicate" if again else "applied", after)


def _unseen(state: CaseEvent, form_id: str, received_on: str | None) -> bool:
    modified = state.server_date_modified
    if received_on is None or modified is None or received_on <= modified:
        return False
    return form_id not in (state.xform_ids or ())


def _order_of_version(form: FormSaid) -> tuple[str, str]:
    """Return what orders the versions of a form: an edit says when, in JSON; then the capture.

    Not `server_modified_on`: XML has none, and a rule by pairs (contract §5) has no order that any
    order of arrival would end in.
    """
    return form.edited_on or "", form.captured_id


def _with_forms(fold: CaseFold | None, forms: Mapping[str, FormSaid], capture: Capture) -> CaseFold:
    if fold is None:
        return CaseFold(capture.microseconds, forms)
    if fold.forms == forms:
        return fold
    return CaseFold(max(fold.version + 1, capture.microseconds), forms, fold.gone)


def _with_block(before: FormSaid | None, change: CaseChange, capture: Capture) -> FormSaid:
    """Return a form's entry with one more block.

    The blocks of an older version stay until those of the new one have come, one by one: nobody
    sees a case with half a form in between when HQ sends the same form again.
    """
    blocks = list(before.blocks[: change.blocks]) if before is not None else []
    blocks += [None] * (change.blocks - len(blocks))
    blocks[change.block - 1] = _said(change)
    return FormSaid(change.received_on, change.edited_on, capture.id, blocks)


def _said(change: CaseChange) -> Said:
    create, update = change.create or {}, change.update or {}
    properties: dict[str, Json] = {}
    for name, value in (*create.items(), *update.items()):
        text = text_of(value) if name in _KNOWN else None
        if isinstance(text, str) and text:
            properties[name] = text
    for name, value in update.items():
        properties |= _dynamic(name, value)
    user_id = change.user_id or text_of(update.get("user_id")) or text_of(create.get("user_id"))
    return Said(
        at=change.date_modified or change.received_on,
        user_id=user_id if isinstance(user_id, str) else "",
        properties=properties,
        index=change.index or {},
        close=change.close,
    )


def _dynamic(name: str, value: Json) -> Mapping[str, Json]:
    """Return what an element of `update` that is no known property sets, blank or not.

    Three names have a meaning of their own in HQ (`_apply_update_action` in update_strategy.py).
    """
    if name in _KNOWN or name in {"user_id", "location_id"}:
        return {}
    if name == "name":
        return {"case_name": value}
    if name == "hq_user_id":
        return {name: value, "external_id": value}
    return {name: value}


def _in_order(forms: Mapping[str, FormSaid]) -> list[Entry]:
    return sorted(forms.items(), key=lambda entry: (entry[1].received_on or "", entry[0]))


def _properties(said: Iterable[Said]) -> dict[str, Json]:
    """Return the properties. A case has an owner and was opened, even if no block says so."""
    properties: dict[str, Json] = {}
    for block in said:
        properties |= block.properties
        if block.user_id:
            properties.setdefault("owner_id", block.user_id)
        if block.at:
            properties.setdefault("date_opened", block.at)
    return properties


def _indices(said: Iterable[Said]) -> dict[str, Index]:
    indices: dict[str, Index] = {}
    for block in said:
        indices |= block.index
    return {name: index for name, index in indices.items() if index["case_id"]}


def _last_user(said: Sequence[Said]) -> str:
    return next((block.user_id for block in reversed(said) if block.user_id), "")


def _latest_time(said: Iterable[Said]) -> str | None:
    return max((block.at for block in said if block.at), default=None)


def _pruned(entries: Sequence[Entry], detailed: int) -> Iterator[Entry]:
    """Yield the entries, the old ones without what later old ones have said otherwise."""
    first_detailed = max(0, len(entries) - detailed)
    old = entries[:first_detailed]
    said = [block for _, form in old for block in form.blocks if block is not None]
    remaining = dict(zip(map(id, said), _remaining(said), strict=True))
    for form_id, form in old:
        blocks = [block and remaining[id(block)] for block in form.blocks]
        yield form_id, msgspec.structs.replace(form, blocks=blocks)
    yield from entries[first_detailed:]


def _remaining(said: Sequence[Said]) -> list[Said | None]:
    """Return what counts of each of these blocks, None if nothing does."""
    kept_for_times = _witnesses(said)
    names: set[str] = set()
    identifiers: set[str] = set()
    closed = False
    remaining: list[Said | None] = []
    for block in reversed(said):
        left = msgspec.structs.replace(
            block,
            properties={k: v for k, v in block.properties.items() if k not in names},
            index={k: v for k, v in block.index.items() if k not in identifiers},
            close=block.close and not closed,
        )
        names |= left.properties.keys()
        identifiers |= left.index.keys()
        closed = closed or left.close
        counts = left.properties or left.index or left.close or id(block) in kept_for_times
        remaining.append(left if counts else None)
    return remaining[::-1]


def _witnesses(said: Sequence[Said]) -> set[int]:
    """Return (by `id`) the blocks that say who opened and last changed the case, and when."""
    users = [block for block in said if block.user_id]
    timed = [block for block in said if block.at]
    witnesses = [*users[:1], *users[-1:], *timed[:1]]
    if timed:
        witnesses.append(max(timed, key=lambda block: block.at or ""))
    return {id(block) for block in witnesses}
