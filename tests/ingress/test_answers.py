"""Every answer that contract §3 names, and what HQ's users see of it."""

from dataclasses import dataclass
from typing import get_args

import pytest

from ingress import answers
from ingress.answers import Answer, Refusal
from ingress.auth import Credential
from ingress.settings import IngressSettings
from tests.ingress.conftest import StartRig

pytestmark = pytest.mark.anyio

PATH = "/api/v1/in/demo"
GOOD = (("Authorization", "Basic aHE6c2VjcmV0"),)
SMALL = IngressSettings(max_body_bytes=1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request, and the answer it must have. `reason` labels the metric of refusals."""

    method: str = "POST"
    path: str = PATH
    headers: tuple[tuple[str, str], ...] = GOOD
    body: bytes = b"x"
    status: int
    reason: Refusal | None = None
    says: str = ""


CASES = {
    "stored": Case(status=200, says='"stored": "kafka"'),
    "stored by PUT": Case(method="PUT", status=200, says='"stored": "kafka"'),
    "stored by DELETE": Case(method="DELETE", status=200, says='"stored": "kafka"'),
    "empty": Case(body=b"", status=200, says='"id"'),
    "slash": Case(path=f"{PATH}/", status=200, says='"id"'),
    "label": Case(path=f"{PATH}/any%20label", status=200, says='"id"'),
    "test connection": Case(method="GET", body=b"", status=200, says="forwarded for demo here"),
    "HEAD": Case(method="HEAD", body=b"", status=200),
    "no credentials": Case(headers=(), status=401, reason="unauthorized", says="in HQ"),
    "wrong credentials": Case(
        headers=(("Authorization", "Basic aHE6d3Jvbmc="),), status=401, reason="unauthorized"
    ),
    "test with wrong credentials": Case(
        method="GET", headers=(), body=b"", status=401, reason="unauthorized"
    ),
    "too large": Case(body=bytes(1001), status=413, reason="too_large", says="max_body_bytes"),
    "OPTIONS": Case(method="OPTIONS", status=405, reason="method_not_allowed", says="POST"),
    "PATCH": Case(method="PATCH", status=405, reason="method_not_allowed"),
    "unknown domain": Case(
        path="/api/v1/in/other", status=503, reason="unknown_domain", says="[domains.NAME]"
    ),
    "upper case": Case(path="/api/v1/in/Demo", status=503, reason="bad_address", says="lower case"),
    "too long": Case(path=f"{PATH}/a/b", status=503, reason="bad_address"),
    "no domain": Case(path="/api/v1/in/", status=503, reason="bad_address"),
    "bare": Case(path="/api/v1/in", status=503, reason="bad_address"),
    "elsewhere": Case(path="/elsewhere", status=404, reason="not_found", says="/api/v1/in/DOMAIN"),
    "root": Case(method="GET", path="/", body=b"", status=404, reason="not_found"),
    "health is elsewhere": Case(
        method="GET", path="/health/live", body=b"", status=404, reason="not_found"
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_every_request_has_its_answer(start: StartRig, case: Case) -> None:
    basic = Credential(name="c", domains=("demo",), kind="basic", secret="secret", username="hq")
    rig = await start(SMALL, credentials=[basic])
    reply = await rig.request(case.method, case.path, case.body, case.headers)
    assert (reply.status, case.says in reply.text) == (case.status, True)
    assert ("Allow" in reply.headers) == (case.status == 405)
    assert ("WWW-Authenticate" in reply.headers) == (case.status == 401)
    assert "Location" not in reply.headers
    assert "secret" not in reply.text
    assert bool(reply.text) == (case.method != "HEAD")
    stored = case.status == 200 and case.method in answers.STORING
    assert len(await rig.captured()) == stored
    value = rig.registry.get_sample_value
    assert value("casewire_ingress_answers_total", {"status": str(case.status)}) == 1
    if case.reason is not None:
        assert value("casewire_ingress_refusals_total", {"reason": case.reason}) == 1


CONSTANTS = [value for value in vars(answers).values() if isinstance(value, Answer)]


def test_each_answer_is_a_sentence_and_is_counted_under_its_reason() -> None:
    reasons = {answer.refusal for answer in CONSTANTS}
    made = {answers.too_large(1).refusal, answers.unauthorized(()).refusal, "unavailable"}
    assert reasons | made == set(get_args(Refusal))
    for answer in CONSTANTS:
        assert answer.text.endswith(".\n")
        assert answer.status in (400, 404, 405, 411, 503)
        assert answer.status != 503 or answer.text.startswith("Not stored, send it again later: ")
