"""Every sample body of HQ comes out as what it is, or as the dead letter that it deserves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson
import pytest

from schemas.errors import Cause, InvalidEventError
from schemas.parse import Event, destination, key, parse
from tests.schemas.captures import HQ, fixture

EXPECTED: Final = Path(__file__).parent / "expected"

CASE: Final = "org.commcare.case.snapshot"
FORM: Final = "org.commcare.form.submitted"

EVENTS: Final[Mapping[str, tuple[str, str]]] = {
    "app_structure_body.txt": (
        "org.commcare.app.changed",
        "demo/193b28e58f335f165cb3e2bbe02b3ed8",
    ),
    "case_json_current_closed.json": (CASE, "demo/79e25a30-8db5-4a5a-827b-0297b254e87f"),
    "case_json_current_index_removed.json": (CASE, "demo/79e25a30-8db5-4a5a-827b-0297b254e87f"),
    "case_json_current_open.json": (CASE, "demo/79e25a30-8db5-4a5a-827b-0297b254e87f"),
    "case_json_doc_sample.json": (CASE, "demo/b0916685-7247-4c44-b712-633d3d64e0c0"),
    "case_ledger_form.xml": (FORM, "demo/ad38211be256653bceac8e2156475664"),
    # Never forwarded, but of the shape that older forwarders sent.
    "case_v1_api.json": (CASE, "demo/45WKYXQRFFU3AT4Y022EX7HF2"),
    "case_xml_v1.xml": (CASE, "demo/79e25a30-8db5-4a5a-827b-0297b254e87f"),
    "case_xml_v2_closed.xml": (CASE, "demo/79e25a30-8db5-4a5a-827b-0297b254e87f"),
    "case_xml_v2_full.xml": (CASE, "demo/79e25a30-8db5-4a5a-827b-0297b254e87f"),
    "case_xml_v2_open.xml": (CASE, "demo/b0916685-7247-4c44-b712-633d3d64e0c0"),
    "datasource.json": (
        "org.commcare.datasource.changed",
        "019aa0b0-0000-7000-8000-000000000001",
    ),
    "form_json_connect_forwarded.json": (FORM, "demo/f469597c-7587-4029-ba9d-215ce7660674"),
    "form_json_connect_full.json": (FORM, "demo/f469597c-7587-4029-ba9d-215ce7660674"),
    "form_json_edited.json": (FORM, "demo/f959449c-8776-42ac-b776-3f564fafc331"),
    "form_json_full.json": (FORM, "demo/f959449c-8776-42ac-b776-3f564fafc331"),
    "form_stub.json": ("org.commcare.form.stub", "demo/afcb3026-c4b3-463f-85ec-0cb9a2737fc5"),
    "form_with_case.xml": (FORM, "demo/ad38211be256653bceac8e2156475666"),
    "form_xml_case_name_update.xml": (FORM, "demo/5d1e0a9f8b7c4d3e9f2a1b0c9d8e7f60"),
    "form_xml_covid_registration.xml": (FORM, "demo/dca03509-4446-41dc-8352-2bb6f8516c7b"),
    "form_xml_data_types.xml": (FORM, "demo/a1b2c3d4e5f60718293a4b5c6d7e8f90"),
    "form_xml_no_case.xml": (FORM, "demo/2f1d7c1e-3a55-4b53-9d5c-1f2a3b4c5d6e"),
    "form_xml_repeater_test_create.xml": (FORM, "demo/0e3f0e5c6d9f4d6c9c1c2f6d0a1b2c3d"),
    "form_xml_repeater_test_update.xml": (FORM, "demo/7b1f6a3e2c4d4e5f8a9b0c1d2e3f4a5b"),
    "form_xml_with_case.xml": (FORM, "demo/afcb3026-c4b3-463f-85ec-0cb9a2737fc5"),
    "location.json": ("org.commcare.location.saved", "demo/1a2b3c4d5e6f708192a3b4c5d6e7f809"),
    "simple_form.xml": (FORM, "demo/someuid"),
    "simple_form_edited.xml": (FORM, "demo/ad38211be256653bceac8e2156475664"),
    "user.json": ("org.commcare.user.saved", "demo/8f3c1d2e4b5a69788796a5b4c3d2e1f0"),
    "v1_case_in_repeats.xml": (FORM, "demo/JLP8BS71HFU3VGMIWW610W80T"),
    "v2_case_attachment.xml": (FORM, "demo/3a1b2c3d4e5f60718293a4b5c6d7e8f9"),
    "v2_create_update.xml": (FORM, "demo/REPLACE_UID"),
    "v2_duplicate_case_properties.xml": (FORM, "demo/ea9571f2-785a-4159-8937-caf66c25ac4f"),
    "v2_multiple_case_blocks.xml": (FORM, "demo/50cd023e-652c-4e8b-82a9-e0e13a9c0ce8"),
    "v2_named_namespace.xml": (FORM, "demo/05f9c90f-8e2e-4e3f-b392-002058c46b00"),
}

DEAD: Final[Mapping[str, Cause]] = {
    # Answers and requests of HQ's APIs, and notes on headers: no forwarder sends them.
    "bulk_upload_response.json": "unknown_kind",
    "bulk_upload_status_ok.json": "unknown_kind",
    "bulk_upload_status_row_errors.json": "unknown_kind",
    "case_v2_api.json": "unknown_kind",
    "case_v2_bulk_fetch_request.json": "unknown_kind",
    "case_v2_bulk_fetch_response.json": "unknown_kind",
    "case_v2_bulk_temporary_id_request.json": "unknown_kind",
    "case_v2_bulk_upsert_request.json": "unknown_kind",
    "case_v2_submission_error.json": "unknown_kind",
    "case_v2_write_response.json": "unknown_kind",
    "form_list_envelope.json": "unknown_kind",
    "form_to_json_sql_attrs.json": "unknown_kind",
    "http_headers_case_forward.json": "unknown_kind",
    "http_headers_form_forward.json": "unknown_kind",
    "oauth2_client_credentials_exchange.json": "unknown_kind",
    # XML that is no case, and has no id that would make it a form.
    "device_log.xml": "missing_id",
    "form_xml_non_bmp.xml": "missing_id",
    "openrosa_error_v2.xml": "missing_id",
    "openrosa_success.xml": "missing_id",
    "v2_basic_close.xml": "missing_id",
    "v2_basic_create.xml": "missing_id",
    "v2_basic_update.xml": "missing_id",
    "v2_index_update.xml": "missing_id",
}


def parsed(name: str) -> Event:
    return parse(fixture(name))


def test_the_tables_name_every_file() -> None:
    files = {path.name for path in HQ.iterdir()} - {"INDEX.md"}
    assert files == {*EVENTS, *DEAD}


@pytest.mark.parametrize(("name", "expected"), EVENTS.items())
def test_a_forwarded_body_comes_out_as_what_it_is(name: str, expected: tuple[str, str]) -> None:
    event = parsed(name)
    assert (destination(event).ce_type, key(event, fixture(name))) == expected


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_survives_its_topic(name: str) -> None:
    event = parsed(name)
    assert type(event).from_json(event.to_json()) == event


@pytest.mark.parametrize("name", EVENTS)
def test_a_label_does_not_change_a_known_kind(name: str) -> None:
    assert type(parse(fixture(name, label="clinic"))) is type(parsed(name))


@pytest.mark.parametrize(("name", "cause"), DEAD.items())
def test_what_no_forwarder_sends_is_a_dead_letter(name: str, cause: Cause) -> None:
    with pytest.raises(InvalidEventError) as error:
        parsed(name)
    assert error.value.cause == cause


@pytest.mark.parametrize("path", sorted(EXPECTED.iterdir()), ids=lambda path: path.stem)
def test_every_value_is_as_expected(path: Path) -> None:
    """The expected files were written by the parser once, and then read against the samples."""
    name = path.name.removesuffix(".expected.json")
    assert orjson.loads(parsed(name).to_json()) == orjson.loads(path.read_bytes())
