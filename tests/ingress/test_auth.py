"""Credentials: who gets in, by which header, and what the others hear."""

import base64

import pytest
from hypothesis import given, strategies as st

from ingress.auth import Credential, authenticate, guards, secret_headers
from tests.ingress.conftest import StartRig

OLD = Credential(
    name="old", domains=("demo",), kind="basic", username="zoë", secret="pässword:with colon"
)
NEW = Credential(name="new", domains=("demo", "two"), kind="basic", username="zoë", secret="new")
KEY = Credential(name="key", domains=("keys",), kind="api-key", secret="ApiKey hq:abc")
OWN = Credential(
    name="own", domains=("keys", "demo"), kind="api-key", secret="schlüssel", header="X-API-Key"
)
ALL = (OLD, NEW, KEY, OWN)


def basic(pair: str, encoding: str = "utf-8") -> bytes:
    return b"Basic " + base64.b64encode(pair.encode(encoding))


@pytest.mark.parametrize(
    ("domain", "header", "value", "proven"),
    [
        ("demo", b"authorization", basic("zoë:pässword:with colon"), "old"),
        ("demo", b"authorization", basic("zoë:pässword:with colon", "latin-1"), "old"),
        ("demo", b"authorization", basic("zoë:new").replace(b"Basic", b"bAsIc"), "new"),
        ("demo", b"x-api-key", "schlüssel".encode(), "own"),
        ("demo", b"x-api-key", "schlüssel".encode("latin-1"), "own"),
        ("keys", b"authorization", b"ApiKey hq:abc", "key"),
        ("two", b"authorization", basic("zoë:pässword:with colon"), None),
        ("demo", b"authorization", basic("zoe:new"), None),
        ("demo", b"authorization", basic("zoë:"), None),
        ("demo", b"authorization", basic(""), None),
        ("demo", b"authorization", b"Basic ***", None),
        ("demo", b"authorization", b"", None),
        ("demo", b"authorization", b"ApiKey hq:abc", None),
        ("keys", b"authorization", b"hq:abc", None),
        ("keys", b"x-other", b"ApiKey hq:abc", None),
        ("keys", b"authorization", basic("zoë:new"), None),
    ],
)
def test_a_request_proves_what_it_should(
    domain: str, header: bytes, value: bytes, proven: str | None
) -> None:
    headers = [(b"host", b"h"), (header, value)]
    assert authenticate(guards(ALL)[domain], headers) == proven


@given(st.binary(max_size=40))
def test_no_header_value_breaks_the_check_or_gets_in(value: bytes) -> None:
    headers = [(b"authorization", value), (b"x-api-key", value)]
    assert authenticate(guards([OLD, NEW])["demo"], headers) is None


def test_a_secret_is_neither_stored_nor_shown() -> None:
    assert secret_headers(ALL) == {"authorization", "x-api-key"}
    assert "pässword" not in repr(OLD)


@pytest.mark.anyio
async def test_only_good_credentials_get_in_and_the_challenge_fits(start: StartRig) -> None:
    rig = await start(domains=("demo", "keys", "open"), credentials=ALL)
    good = {"Authorization": basic("zoë:new").decode()}
    bad = {"Authorization": basic("zoë:wrong").decode()}
    for method, body in (("POST", b"x"), ("GET", b""), ("HEAD", b"")):
        assert (await rig.request(method, "/api/v1/in/demo", body, good)).status == 200
        reply = await rig.request(method, "/api/v1/in/demo", body, bad)
        assert reply.status == 401
        assert reply.headers["WWW-Authenticate"] == 'Basic realm="casewire", charset="UTF-8"'
    refused = await rig.request("POST", "/api/v1/in/keys", b"x")
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"] == 'ApiKey realm="casewire"'
    assert (await rig.request("POST", "/api/v1/in/open", b"x", bad)).status == 200
    assert len(await rig.captured()) == 2
