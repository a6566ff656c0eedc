"""Forms and form stubs as HQ's JSON has them (protocol.md §6.2, §1.1)."""

from collections.abc import Mapping
from typing import Final

from schemas.envelope import Captured
from schemas.fields import identifier, mapping, of_type, ordering_time, passed_through, texts
from schemas.form import FormEvent, FormStub
from schemas.form_fields import (
    KNOWN,
    METADATA_TIMES,
    RECEIVED_ON,
    RESERVED,
    make_case_times_canonical,
    make_times_canonical,
)
from schemas.values import Json

_TYPES: Final[Mapping[str, type]] = {
    "type": str,
    "version": str,
    "uiversion": str,
    "edited_by_user_id": str,
    "indexed_on": str,
    "app_id": str,
    "build_id": str,
    "submit_ip": str,
    "initial_processing_complete": bool,
    "problem": str,
    "archived": bool,
    "attachments": dict,
    "is_phone_submission": bool,
    "resource_uri": str,
}
_STUB: Final = frozenset(FormStub.names())


def form_from_json(sent: dict[str, Json], captured: Captured) -> FormEvent:
    extra = passed_through(sent, KNOWN, RESERVED, captured.domain)
    known: dict[str, Json] = {
        name: of_type(kind, name, sent, extra) for name, kind in _TYPES.items()
    }
    if not known["app_id"]:
        known["app_id"] = captured.app_id
    form = mapping("form", sent)
    make_case_times_canonical(form)
    metadata = of_type(dict, "metadata", sent, extra)
    if metadata is not None:
        make_times_canonical(METADATA_TIMES, metadata)
    return FormEvent(
        id=identifier(sent["id"], "id"),
        domain=captured.domain,
        form=form,
        metadata=metadata,
        received_on=ordering_time("received_on", sent, extra, captured, RECEIVED_ON),
        server_modified_on=ordering_time("server_modified_on", sent, extra, captured, ""),
        edited_on=ordering_time("edited_on", sent, extra, captured, ""),
        **known,
        extra=extra,
    )


def stub_from_json(sent: dict[str, Json], captured: Captured) -> FormStub:
    extra = passed_through(sent, _STUB, (), captured.domain)
    return FormStub(
        domain=captured.domain,
        form_id=identifier(sent["form_id"], "form_id"),
        received_on=ordering_time("received_on", sent, extra, captured, RECEIVED_ON),
        case_ids=texts(sent["case_ids"], "case_ids"),
        extra=extra,
    )
