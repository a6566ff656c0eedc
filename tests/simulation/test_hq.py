"""HQ's rules, against the table of protocol.md §3.1 and the schedule of §3.3."""

from itertools import accumulate

import pytest

from casewire.hq import (
    WAITS,
    Generation,
    Request,
    Verdict,
    address,
    redirected,
    verdict,
    wait_before,
)
from casewire.hq_logins import Digest, basic, digest

INVALID_FOR_A = {
    401,
    402,
    403,
    405,
    406,
    410,
    411,
    413,
    414,
    415,
    416,
    417,
    418,
    421,
    422,
    431,
    451,
}
RETRIED_BY_A = {400, 404, 408, 409, 412, 423, 424, 425, 426, 428, 429, 500, 501, 502, 503, 504, 505}


@pytest.mark.parametrize("generation", ["A", "B"])
def test_a_success_is_one_in_both_generations_and_204_is_empty(generation: Generation) -> None:
    assert {verdict(status, generation) for status in (200, 201, 202, 299)} == {"success"}
    assert verdict(204, generation) == "empty"


@pytest.mark.parametrize("generation", ["A", "B"])
@pytest.mark.parametrize("status", [300, 301, 304, 399])
def test_a_redirect_that_is_not_followed_is_rejected(generation: Generation, status: int) -> None:
    assert verdict(status, generation) == "rejected"


def test_generation_a_rejects_an_invalid_payload_and_tries_anything_else_again() -> None:
    assert {status for status in range(400, 600) if verdict(status, "A") == "rejected"} == (
        INVALID_FOR_A
    )
    assert {verdict(status, "A") for status in RETRIED_BY_A} == {"retry"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, "rejected"), (401, "rejected"), (404, "rejected"), (408, "rejected"),
        (409, "rejected"), (413, "rejected"), (422, "rejected"), (425, "rejected"),
        (429, "retry"), (500, "retry"), (502, "retry"), (503, "retry"), (504, "retry"),
        (501, "rejected"), (505, "rejected"), (507, "rejected"),
    ],
)  # fmt: skip
def test_generation_b_tries_again_only_what_is_in_its_list(status: int, expected: Verdict) -> None:
    assert verdict(status) == expected


def test_the_schedule_is_that_of_hq() -> None:
    assert [seconds / 3600 for seconds in accumulate(WAITS, initial=0)] == [0, 1, 4, 13, 40, 121]
    assert [wait_before(sends, "answer") for sends in range(1, 7)] == [*WAITS, None]
    assert [wait_before(sends, "exception") for sends in range(1, 4)] == [*WAITS[:2], None]


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [
        ("POST", 301, "GET"), ("POST", 302, "GET"), ("POST", 303, "GET"), ("POST", 307, "POST"),
        ("POST", 308, "POST"), ("PUT", 301, "PUT"), ("PUT", 302, "GET"), ("DELETE", 303, "GET"),
    ],
)  # fmt: skip
def test_a_redirect_changes_the_method_as_requests_does(
    method: str, status: int, expected: str
) -> None:
    assert redirected(method, status) == expected


def test_basic_credentials_are_latin_1_if_they_can_be() -> None:
    assert basic("hq", "é") == ("Authorization", "Basic aHE66Q==")
    assert basic("hq", "日") == ("Authorization", "Basic aHE65pel")


@pytest.mark.parametrize(
    "challenge",
    [
        'Basic realm="casewire"',
        'Digest realm="r", nonce="n", qop="auth", algorithm=MD5-sess',
        'Digest realm="r", nonce="n", qop="auth-int"',
        'Digest realm="r", qop="auth"',
        'Digest realm=, nonce="n", qop="auth", broken',
        "",
    ],
)
def test_a_challenge_that_cannot_be_answered_is_not(challenge: str) -> None:
    login = Digest("hq", "secret")
    assert digest(login, challenge, method="POST", target="/", cnonce="c") is None


def test_an_address_gets_label_and_query() -> None:
    request = Request(kind="form", body=b"", content_type="", label="visits", query="app_id=1")
    assert address("http://h/in/demo/?a=b", request) == "http://h/in/demo/visits?a=b&app_id=1"
