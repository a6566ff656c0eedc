"""The headers of a state that is published again, made from the state itself."""

from collections.abc import Callable, Mapping
from typing import Final

import orjson
from msgspec.structs import replace

from schemas.case import CaseState
from schemas.envelope import Headers
from streams.fence import VERSION
from streams.fold import FORM, CaseFold
from streams.records import Out, time_of_id

#: Of each kind of state: the field of its id, and that of its version.
_FIELDS: Final[Mapping[str, tuple[str, str]]] = {
    "case": ("case_id", "version"),
    "form": ("id", "state_version"),
    "user": ("id", "version"),
    "location": ("location_id", "version"),
}


def state_headers(kind: str, writer: str) -> Callable[[bytes, bytes], Headers]:
    """Return the function from key and value of a state to its headers.

    What only the request's own headers said (`received-on` and the like) is not known any more.
    """
    id_field, version_field = _FIELDS[kind]

    def headers_of(_key: bytes, value: bytes) -> Headers:
        state = orjson.loads(value)
        texts = {
            "ce_type": f"org.commcare.{kind}.state",
            "ce_subject": state[id_field],
            "casewire-schema": f"{kind}-state/1",
            VERSION: str(state[version_field]),
            "casewire-writer": writer,
        }
        return _headers(state["domain"], state["captured_id"], texts)

    return headers_of


def tombstone_headers(state: CaseState, writer: str) -> Headers:
    """Return the headers of the null that follows a gone case's state."""
    texts = {
        "ce_id": f"{state.captured_id}/tombstone/0",
        "ce_type": "org.commcare.case.state",
        "ce_subject": state.case_id,
        "casewire-schema": "case-state/1",
        VERSION: str(state.version + 1),
        "casewire-writer": writer,
    }
    return _headers(state.domain, state.captured_id, texts)


def null_again(key: bytes, fold: CaseFold, writer: str) -> Out | None:
    """Return the null of a case that is forgotten, as its fold's mark knows it; None without."""
    if fold.gone is None:
        return None
    domain, _, case_id = key.decode().partition("/")
    state = replace(fold.gone.state(domain, case_id), version=fold.gone.version - 1)
    return Out(key, None, tombstone_headers(state, writer))


def fold_headers(writer: str) -> Callable[[bytes, bytes], Headers]:
    """Return the function from key and value of a case's fold to its headers, as above."""

    def headers_of(key: bytes, value: bytes) -> Headers:
        domain, _, case_id = key.decode().partition("/")
        fold = CaseFold.from_json(value)
        texts = {
            "ce_type": "casewire.case-fold",
            "ce_subject": case_id,
            "casewire-schema": FORM,
            VERSION: str(fold.version),
            "casewire-writer": writer,
        }
        captured_ids = [form.captured_id for form in fold.forms.values()]
        if fold.gone is not None:
            captured_ids.append(fold.gone.captured_id)
        captured_ids += [each["captured_id"] for each in fold.rivals if each is not None]
        return _headers(domain, max(captured_ids, default=""), texts)

    return headers_of


def _headers(domain: str, captured_id: str, texts: Mapping[str, str]) -> Headers:
    common = {
        "ce_specversion": "1.0",
        "ce_id": f"{captured_id}/state/0",
        "ce_source": f"/commcare/{domain}",
        "ce_time": time_of_id(captured_id),
        "content-type": "application/json",
        "casewire-domain": domain,
        "casewire-captured-id": captured_id,
    }
    first = {VERSION: texts[VERSION]}  # as on every state: recovery reads no further
    return [(name, text.encode()) for name, text in {**first, **common, **texts}.items()]
