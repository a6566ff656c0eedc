"""One request of each kind of forwarder, with the headers that HQ gives it (protocol.md §1.1)."""

from typing import Final

from casewire.hq import Request
from casewire.simulation import render
from casewire.simulation.model import Case, Form, Location, User
from casewire.truth import Comparable
from schemas.times import from_datetime

JSON: Final = "application/json"
XML: Final = "text/xml"
#: The label of the address to which the data-source forwarder posts.
DATA_SOURCE_LABEL: Final = "case-counts"


def case(case: Case, comparable: Comparable, domain: str) -> Request:
    if comparable == "json":
        body = render.case_json(case, domain)
    else:
        body = render.case_xml(case) if comparable == "xml" else render.case_xml_v1(case)
    return Request(
        kind=f"case_{comparable}",
        body=body,
        content_type=JSON if comparable == "json" else XML,
        headers=(("server-modified-on", from_datetime(case.server_modified_on)),),
        subject=case.case_id,
    )


def form(form: Form, domain: str, *, as_json: bool) -> Request:
    return Request(
        kind="form_json" if as_json else "form_xml",
        body=render.form_json(form, domain) if as_json else render.form_xml(form),
        content_type=JSON if as_json else XML,
        headers=_received_on(form),
        query=f"app_id={form.app_id}",
        subject=form.id,
    )


def stub(form: Form) -> Request:
    return Request(
        kind="form_stub",
        body=render.form_stub(form),
        content_type=JSON,
        headers=_received_on(form),
        subject=form.id,
    )


def user(user: User, domain: str) -> Request:
    body = render.user_json(user, domain)
    return Request(kind="user", body=body, content_type=JSON, subject=user.id)


def location(location: Location, domain: str) -> Request:
    body = render.location_json(location, domain)
    return Request(kind="location", body=body, content_type=JSON, subject=location.id)


def app(app_id: str) -> Request:
    """Return the announcement of an app change: text/xml by its header, a bare id in truth."""
    return Request(kind="app", body=app_id.encode(), content_type=XML, subject=app_id)


def data_source(data_source_id: str, case: Case) -> Request:
    return Request(
        kind="data_source",
        body=render.data_source_json(data_source_id, case),
        content_type=JSON,
        label=DATA_SOURCE_LABEL,
        subject=case.case_id,
    )


def _received_on(form: Form) -> tuple[tuple[str, str]]:
    return (("received-on", from_datetime(form.received_on)),)
