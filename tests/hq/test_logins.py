"""Every way in which HQ proves who it is, by its own libraries, against the ingress process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import orjson
import pytest
from urllib3.exceptions import InsecureRequestWarning

from casewire.hq import Request
from schemas.settings import KafkaSettings
from tests.hq.captured import assert_stored, event_id
from tests.hq.certificates import Certificate, make_certificate
from tests.hq.client import Repeater
from tests.hq.ingress import Ingress, running_ingress
from tests.hq.logins import (
    Anyone,
    ApiKey,
    Basic,
    Bearer,
    ClientCredentials,
    Digest,
    Login,
    PasswordGrant,
)

pytestmark = pytest.mark.kafka

FORM = Path(__file__).parent.parent / "fixtures" / "hq" / "form_xml_data_types.xml"
PAYLOAD = Request(
    kind="form_xml",
    body=FORM.read_bytes(),
    content_type="text/xml",
    headers=(("received-on", "2026-11-22T10:00:00.000000Z"),),
    query="app_id=None",
)
SECRET = "pässwörd-of-hq"
DIGEST_SECRET = "password-of-hq"
KEY = "ApiKey hq@example.org:0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Way:
    """The keys of a credential, and the login for an ingress' origin, a user name and a secret.

    `by_token`: HQ asks for a token first, so that a wrong secret is no answer but a failure.
    """

    credential: str
    login: Callable[[str, str, str], Login]
    secret: str = SECRET
    by_token: bool = False


def client_credentials(origin: str, user: str, secret: str, *, in_header: bool) -> Login:
    return ClientCredentials(
        client_id=user,
        client_secret=secret,
        token_url=f"{origin}/oauth/token",
        in_header=in_header,
        scope="a b",
    )


def password_grant(origin: str, user: str, secret: str, *, in_header: bool) -> Login:
    return PasswordGrant(
        username=user,
        password=secret,
        client_id="any",
        client_secret="one",
        token_url=f"{origin}/oauth/token",
        in_header=in_header,
    )


def bearer(origin: str, user: str, secret: str) -> Login:
    return Bearer(user, secret, https_only=False)


WAYS: Mapping[str, Way] = {
    "basic": Way('kind = "basic"', lambda _, user, secret: Basic(user, secret)),
    "digest": Way('kind = "digest"', lambda _, user, secret: Digest(user, secret), DIGEST_SECRET),
    "api-key": Way('kind = "api-key"', lambda _, __, secret: ApiKey(secret), KEY),
    "api-key-header": Way(
        'kind = "api-key"\nheader = "X-Token"',
        lambda _, __, secret: ApiKey(secret, "X-Token"),
        KEY,
    ),
    "bearer": Way('kind = "bearer"', bearer, by_token=True),
    "oauth2-header": Way(
        'kind = "oauth2"', partial(client_credentials, in_header=True), by_token=True
    ),
    "oauth2-body": Way(
        'kind = "oauth2"', partial(client_credentials, in_header=False), by_token=True
    ),
    "password-header": Way(
        'kind = "bearer"', partial(password_grant, in_header=True), by_token=True
    ),
    "password-body": Way(
        'kind = "bearer"', partial(password_grant, in_header=False), by_token=True
    ),
}


#: The options of `casewire send` for a way, beside user and secret.
SEND: Mapping[str, Sequence[str]] = {
    "basic": (),
    "digest": ("--auth", "digest"),
    "api-key": (),
    "api-key-header": ("--api-key-header", "X-Token"),
    "bearer": ("--auth", "bearer"),
    "oauth2-header": ("--auth", "oauth2"),
    "oauth2-body": ("--auth", "oauth2-body"),
}


def user_of(name: str) -> str:
    return f"hq-{name}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module", params=["http", "https"])
def ingress(
    request: pytest.FixtureRequest,
    topics: KafkaSettings,
    certificate: Certificate,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ingress]:
    """An ingress with a project space for each way, called like it, and `anyone`."""
    folder = tmp_path_factory.mktemp("logins")
    tables = "[domains.anyone]\n"
    for name, way in WAYS.items():
        secret = folder / f"{name}.secret"
        secret.write_text(way.secret, encoding="utf-8")
        secret.chmod(0o600)
        tables += (
            f"[domains.{name}]\n[credentials.{name}]\n{way.credential}\n"
            f'username = "{user_of(name)}"\n'
            f'domains = ["{name}"]\nsecret_file = "{secret}"\n'
        )
    keys = certificate.ingress_keys if request.param == "https" else ""
    with running_ingress(Ingress(folder, topics, tables, keys, request.param)) as one:
        yield one


@pytest.fixture(autouse=True)
def trust(monkeypatch: pytest.MonkeyPatch, certificate: Certificate) -> None:
    """Trust our authority, also for tokens; let oauthlib ask for them over plain HTTP too."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.authority))
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.fixture(params=WAYS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_a_payload_with_the_right_login_is_stored_at_the_first_send(
    ingress: Ingress, name: str
) -> None:
    way = WAYS[name]
    repeater = Repeater(
        url=ingress.address(name), login=way.login(ingress.origin, user_of(name), way.secret)
    )
    assert repeater.test_connection().status == 200
    [record] = repeater.forward([PAYLOAD])
    assert (record.state, len(record.attempts)) == ("Succeeded", 1)
    assert_stored(ingress.kafka, {event_id(record.receipt): PAYLOAD.body})


def send(ingress: Ingress, name: str, secret: Path, authority: Path) -> Mapping[str, object]:
    """Run `casewire send` as an operator does; return what it says of the payload."""
    place = ["--api-key-file", str(secret)]
    if not name.startswith("api-key"):
        place = ["--user", user_of(name), "--password-file", str(secret)]
    command = [sys.executable, "-m", "casewire", "send", str(FORM), "--json", "--scale", "0"]
    done = subprocess.run(
        [*command, "--to", ingress.address(name), *SEND[name], *place],
        env={**os.environ, "SSL_CERT_FILE": str(authority)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    [result] = orjson.loads(done.stdout)
    assert done.returncode == (0 if result["outcome"] == "success" else 1)
    said: Mapping[str, object] = result
    return said


@pytest.mark.parametrize("name", SEND)
def test_casewire_send_logs_in_too(ingress: Ingress, name: str, certificate: Certificate) -> None:
    told = send(ingress, name, ingress.folder / f"{name}.secret", certificate.authority)
    assert (told["outcome"], told["sends"]) == ("success", 1)
    assert_stored(ingress.kafka, {event_id(str(told["answer"])): PAYLOAD.body.strip()})


@pytest.mark.parametrize("name", ["digest", "oauth2-body"])
def test_casewire_send_says_that_its_login_is_wrong(
    ingress: Ingress, name: str, certificate: Certificate, tmp_path: Path
) -> None:
    wrong = tmp_path / "secret"
    wrong.write_text("wrong", encoding="utf-8")
    told = send(ingress, name, wrong, certificate.authority)
    by_token = WAYS[name].by_token
    assert told["outcome"] == ("cancelled" if by_token else "rejected")
    assert "HTTP 401" in str(told["answer"]) if by_token else told["status"] == 401


def test_no_login_is_told_so_by_the_test_and_rejected(ingress: Ingress, name: str) -> None:
    repeater = Repeater(url=ingress.address(name))
    assert repeater.test_connection().status == 401
    [record] = repeater.forward([PAYLOAD])
    assert (record.state, len(record.attempts)) == ("Rejected", 1)


def test_a_wrong_login_is_told_so_by_the_test_and_not_stored(ingress: Ingress, name: str) -> None:
    way = WAYS[name]
    repeater = Repeater(
        url=ingress.address(name), login=way.login(ingress.origin, user_of(name), "wrong"), scale=0
    )
    tested = repeater.test_connection()
    [record] = repeater.forward([PAYLOAD])
    if way.by_token:
        assert tested.failure == "exception"
        assert (record.state, len(record.attempts)) == ("Cancelled", 3)
    else:
        assert tested.status == 401
        assert (record.state, len(record.attempts)) == ("Rejected", 1)
    assert way.secret not in record.receipt


def test_a_login_that_nobody_asks_for_does_no_harm(ingress: Ingress) -> None:
    for login in (Anyone(), Basic("any", "one"), ApiKey("any", "X-Any")):
        repeater = Repeater(url=ingress.address("anyone"), login=login)
        assert repeater.test_connection().status == 200
        [record] = repeater.forward([PAYLOAD])
        assert record.state == "Succeeded"


def test_a_project_space_that_is_not_known_yet_is_tried_again_and_never_rejected(
    ingress: Ingress,
) -> None:
    repeater = Repeater(url=ingress.address("not-yet"), scale=0)
    [record] = repeater.forward([PAYLOAD])
    assert record.state == "Cancelled"
    assert [attempt.status for attempt in record.attempts] == [503] * 6


def test_a_certificate_that_hq_does_not_trust_is_tried_again_unless_it_skips_the_check(
    ingress: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    repeater = Repeater(url=ingress.address("anyone"), scale=0)
    [record] = repeater.forward([PAYLOAD])
    if ingress.scheme == "https":
        assert record.state == "Cancelled"
        assert [attempt.status for attempt in record.attempts] == [None] * 6
        with pytest.warns(InsecureRequestWarning):
            [record] = replace(repeater, verify=False).forward([PAYLOAD])
    assert record.state == "Succeeded"
