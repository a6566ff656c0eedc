"""Cases known only from forms: what their case blocks say, folded into a state (contract §5). Pure.

A fold keeps what each form says, so that any order of arrival and any repetition ends in the same
state, and so that an edited form's new version takes the place of the old one. A state is made of
it by applying the blocks by (`received_on`, form id, ordinal) as HQ does (protocol.md §7).

Of a case whose state has become null it keeps a mark (streams/tombstones.py).

It stays small: of all but the newest forms (`detailed`), what later blocks among them have said
otherwise is forgotten. (Should such a form be edited so late, what its new version no longer says
cannot give way to what was forgotten.) Once there is a snapshot, a fold holds no more than the ids
of the forms that the snapshot does not know yet, and of those that were received shortly before it:
they can prove the order of snapshots (streams/evidence.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec
import orjson

from schemas.case import CaseEvent, CaseState, Index
from schemas.case_change import CaseChange
from schemas.markup import text_of
from schemas.times import from_microseconds, to_microseconds
from schemas.values import Json
from streams.compact import Capture, Outcome, same_content
from streams.evidence import Received, newest
from streams.tombstones import Gone

#: Of a fold as it is on its topic: the value of the header `casewire-schema`.
FORM: Final = "case-fold/1"

DETAILED_FORMS: Final = 20
#: The most forms that a fold keeps beside a snapshot.
RECENT_FORMS: Final = 20
#: The most doubtful snapshots that a fold keeps, and the size above which it keeps none.
RIVALS: Final = 8
LARGEST_RIVAL: Final = 64 * 1024

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

    `gone` counts while there is no state: it is what was known before that became null. `rivals`
    are snapshots, as JSON, that may be newer than the state; None stands for one that is not kept.
    """

    version: int
    forms: Mapping[str, FormSaid]
    gone: Gone | None = None
    rivals: Sequence[Mapping[str, Json] | None] = ()

    @property
    def received(self) -> Received:
        return {form_id: said.received_on for form_id, said in self.forms.items()}

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
    window_microseconds: int,
) -> Folded:
    """Judge a case block against the state and the fold that are held for its case.

    The state is made of the fold each time and published if it differs from the one held: so it is
    right also where a crash left the fold ahead of the state.
    """
    if state is not None and state.source == "snapshot":
        return _beside_snapshot(state, fold, change, capture, window_microseconds)
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
    state: CaseState, fold: CaseFold | None, change: CaseChange, capture: Capture, window: int
) -> Folded:
    """Judge a block of a case that has a snapshot: it can make that doubtful, or settle a doubt."""
    since = _moved(state.server_date_modified, -window)
    recent = {
        form_id: msgspec.structs.replace(said, blocks=[])
        for form_id, said in (fold.forms.items() if fold is not None else ())
        if (said.received_on or "") > since
    }
    before = recent.get(change.form_id)
    if before is None and (change.received_on or "") > since:
        recent[change.form_id] = FormSaid(change.received_on, change.edited_on, capture.id, [])
    newest_forms = dict(_in_order(recent)[-RECENT_FORMS:])
    needed = newest_forms or (fold is not None and (fold.gone or fold.rivals))
    after = _with_forms(fold, newest_forms, capture) if needed else None
    settled = _settled(state, after)
    if settled is not None:
        return Folded("applied", after, settled)
    if not _unseen(state, change.form_id, change.received_on):
        return Folded("stale", after)
    if not state.doubtful:
        doubtful = msgspec.structs.replace(state, version=state.version + 1, doubtful=True)
        return Folded("applied", after, doubtful)
    again = before is not None and before.captured_id != capture.id
    return Folded("duplicate" if again else "applied", after)


def _moved(time: str | None, microseconds: int) -> str:
    """Return a time moved; without one, a text that is after all times."""
    return "~" if time is None else from_microseconds(to_microseconds(time) + microseconds)


def with_rival(fold: CaseFold | None, rival: CaseState, capture: Capture) -> CaseFold:
    """Return the fold that keeps a snapshot whose order to the state is doubtful."""
    before = fold if fold is not None else CaseFold(0, {})
    if any(
        same_content(CaseState.from_object(dict(each)), rival) for each in before.rivals if each
    ):
        return before
    value = rival.to_json()
    is_kept = len(value) <= LARGEST_RIVAL and len(before.rivals) < RIVALS
    rivals = [*before.rivals[:RIVALS], orjson.loads(value) if is_kept else None]
    version = max(before.version + 1, capture.microseconds)
    return msgspec.structs.replace(before, version=version, rivals=rivals)


def without_rivals(fold: CaseFold | None) -> CaseFold | None:
    """Return the fold when the order of the latest snapshots is clear."""
    if fold is None or not fold.rivals:
        return fold
    if not fold.forms and fold.gone is None:
        return None
    return msgspec.structs.replace(fold, version=fold.version + 1, rivals=())


def _settled(state: CaseState, fold: CaseFold | None) -> CaseState | None:
    """Return what to publish if forms prove which of the doubtful snapshots is the newest.

    The rivals stay: work done again after a crash must come to the same end.
    """
    if fold is None or not fold.rivals:
        return None
    rivals = [CaseState.from_object(dict(each)) for each in fold.rivals if each is not None]
    others = [each for each in rivals if each.captured_id != state.captured_id]
    winner = newest([state, *others], fold.received) if None not in fold.rivals else None
    if winner is None:
        return None
    doubtful = bool(unseen_forms(winner, fold))
    if winner is state and doubtful == state.doubtful:
        return None
    return msgspec.structs.replace(winner, version=state.version + 1, doubtful=doubtful)


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
    version = max(fold.version + 1, capture.microseconds)
    return msgspec.structs.replace(fold, version=version, forms=forms)


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
