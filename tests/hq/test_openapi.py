"""The ingress against the OpenAPI description that it publishes, by generated requests."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.definitions import OPENAPI_31

from ingress.openapi import DOCUMENT, PATH
from schemas.settings import KafkaSettings
from tests.hq.captured import assert_stored, event_id
from tests.hq.ingress import Ingress, running_ingress

CHECKS = [
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]


@dataclass(slots=True)
class Tally:
    """What was answered, and the body of each event that was."""

    statuses: Counter[int] = field(default_factory=Counter)
    stored: dict[str, bytes] = field(default_factory=dict)

    def add(self, answer: Response) -> None:
        self.statuses[answer.status_code] += 1
        if answer.status_code == 200 and answer.request.method in ("POST", "PUT", "DELETE"):
            assert answer.headers["content-type"] == ["application/json"]
            body = answer.request.body or b""
            self.stored[event_id(answer.text)] = body.encode() if isinstance(body, str) else body


def fuzz(origin: str, examples: int) -> Tally:
    """Call every operation with so many generated requests; hold each answer to the description."""
    tally = Tally()
    schema = schemathesis.openapi.from_url(origin + PATH)
    with requests.Session() as session:
        for found in schema.get_all_operations():
            assert isinstance(found, Ok)
            positive, negative = (found.ok().as_strategy(mode) for mode in GenerationMode)

            @settings(
                max_examples=examples,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=positive | negative)
            def call(case: schemathesis.Case[Any]) -> None:
                answer = case.call(base_url=origin, session=session, allow_redirects=False)
                case.validate_response(answer, checks=CHECKS)
                tally.add(answer)

            call()
    assert 500 not in tally.statuses
    return tally


def test_the_description_is_openapi_and_is_what_is_published(ingress: Ingress) -> None:
    jsonschema.validate(DOCUMENT, OPENAPI_31)
    assert requests.get(ingress.origin + PATH, timeout=10).json() == DOCUMENT
    refused = requests.post(ingress.origin + PATH, timeout=10)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["demo/a%0Ab", "de%0Amo", "%0A", "", "demo/a/b", "demo//", "%FF"])
def test_no_spelling_of_an_address_is_a_404(ingress: Ingress, path: str) -> None:
    answer = requests.post(f"{ingress.origin}/api/v1/in/{path}", data=b"x", timeout=10)
    assert answer.status_code in (200, 503)


@pytest.fixture(scope="module")
def anyone(topics: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Ingress:
    return Ingress(tmp_path_factory.mktemp("anyone"), topics, tables="")


@pytest.mark.kafka
def test_every_answer_is_documented_and_what_was_answered_200_is_stored(anyone: Ingress) -> None:
    with running_ingress(anyone):
        tally = fuzz(anyone.origin, examples=25)
        assert_stored(anyone.kafka, tally.stored)
    assert tally.stored


@pytest.mark.kafka
@pytest.mark.nightly
def test_a_hundred_thousand_requests_have_documented_answers_and_none_is_lost(
    anyone: Ingress,
) -> None:
    stored: dict[str, bytes] = {}
    calls = 0
    with running_ingress(anyone):
        while calls < 100_000:
            tally = fuzz(anyone.origin, examples=500)
            calls += tally.statuses.total()
            stored |= tally.stored
        assert_stored(anyone.kafka, stored)
