"""The proxies of docs/deploy in front of a real ingress: what must not happen to an event."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from casewire.hq import Request
from ingress.attempts import BURST
from schemas.settings import KafkaSettings
from tests.hq.captured import assert_stored, event_id, records
from tests.hq.certificates import Certificate, make_certificate
from tests.hq.client import Repeater
from tests.hq.ingress import Ingress, running_ingress
from tests.hq.logins import ApiKey, Basic, Bearer, Digest, Login
from tests.hq.proxies import PROXIES, Proxy, running_proxy
from tests.servers import free_port

pytestmark = pytest.mark.kafka

SECRET = "password-of-hq"
MEBIBYTE = 1024 * 1024
PAYLOAD = Request(
    kind="form_xml",
    body="<data>é</data>".encode(),
    content_type="text/xml",
    headers=(
        ("received-on", "2026-11-22T10:00:00.000000Z"),
        ("server-modified-on", "2026-11-22T10:00:01.000000Z"),
        ("HTTP_X_OPENROSA_VERSION", "3.0"),
    ),
    query="app_id=abc",
    label="odd%20name",
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def ingress(topics: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    """An ingress that believes a proxy here; a project space for each kind of credential."""
    folder = tmp_path_factory.mktemp("ingress")
    secret = folder / "secret"
    secret.write_text(SECRET, encoding="utf-8")
    secret.chmod(0o600)
    tables = "[domains.demo]\n"
    for kind in ("basic", "digest", "bearer", "api-key"):
        who = 'header = "X_Own_Key"' if kind == "api-key" else 'username = "hq"'
        tables += (
            f'[domains.{kind}]\n[credentials.{kind}]\nkind = "{kind}"\n{who}\n'
            f'domains = ["{kind}"]\nsecret_file = "{secret}"\n'
        )
    keys = f'trusted_proxies = ["127.0.0.1"]\nmax_body_bytes = {21 * MEBIBYTE}\n'
    with running_ingress(Ingress(folder, topics, tables, keys)) as one:
        yield one


@pytest.fixture(scope="module", params=PROXIES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def proxy(
    name: str,
    ingress: Ingress,
    certificate: Certificate,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy") / name
    with running_proxy(name, Proxy(folder, certificate, ingress.port)) as one:
        yield one


@pytest.fixture(autouse=True)
def trust(monkeypatch: pytest.MonkeyPatch, certificate: Certificate) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.authority))


def address(proxy: Proxy, domain: str = "demo") -> str:
    return f"{proxy.origin}/api/v1/in/{domain}"


def stored(ingress: Ingress, receipt: str, value: bytes) -> Mapping[str, bytes]:
    """Return the headers of an event, which has this value, once it is in Kafka."""
    event = event_id(receipt)
    assert_stored(ingress.kafka, {event: value})
    return dict(records(ingress.kafka)[event].headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_payload_arrives_as_hq_sent_it(proxy: Proxy, ingress: Ingress, method: str) -> None:
    [record] = Repeater(url=address(proxy)).forward([replace(PAYLOAD, method=method)])
    assert (record.state, len(record.attempts)) == ("Succeeded", 1)
    headers = stored(ingress, record.receipt, PAYLOAD.body)
    expected = {
        "received-on": b"2026-11-22T10:00:00.000000Z",
        "server-modified-on": b"2026-11-22T10:00:01.000000Z",
        "http_x_openrosa_version": b"3.0",
        "content-type": b"text/xml",
        "host": f"127.0.0.1:{proxy.port}".encode(),
        "casewire-method": method.encode(),
        "casewire-query": b"app_id=abc",
        "casewire-label": b"odd name",
    }
    assert {header: headers[header] for header in expected} == expected


def test_every_login_passes(proxy: Proxy) -> None:
    logins: dict[str, Login] = {
        "basic": Basic("hq", SECRET),
        "digest": Digest("hq", SECRET),
        "bearer": Bearer("hq", SECRET),
        "api-key": ApiKey(SECRET, "X_Own_Key"),
    }
    for domain, login in logins.items():
        repeater = Repeater(url=address(proxy, domain), login=login)
        assert repeater.test_connection().status == 200
        [record] = repeater.forward([PAYLOAD])
        assert (record.state, len(record.attempts)) == ("Succeeded", 1)


def test_a_body_of_twenty_megabytes_passes_and_one_too_large_hears_so_from_casewire(
    proxy: Proxy, ingress: Ingress
) -> None:
    body = bytes(range(256)) * (20 * 4096)
    [record] = Repeater(url=address(proxy)).forward([replace(PAYLOAD, body=body)])
    assert record.state == "Succeeded"
    claim = stored(ingress, record.receipt, b"")["casewire-claim"]
    _, size, digest = claim.split(b";")
    assert (int(size), digest.decode()) == (len(body), hashlib.sha256(body).hexdigest())
    larger = bytes(28 * MEBIBYTE)
    [record] = Repeater(url=address(proxy)).forward([replace(PAYLOAD, body=larger)])
    *earlier, last = [attempt.status for attempt in record.attempts]
    assert last == 413
    # Caddy may end the connection while the client still sends: HQ tries that again.
    assert set(earlier) <= {None}
    assert "max_body_bytes" in record.receipt


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_plain_http_is_not_redirected(proxy: Proxy, method: str) -> None:
    answer = requests.request(
        method,
        f"{proxy.plain_origin}/api/v1/in/demo",
        data=PAYLOAD.body,
        allow_redirects=False,
        timeout=10,
    )
    assert answer.status_code == 503
    assert "https" in answer.text


@pytest.mark.parametrize("path", ["demo/", "demo//", "", "unknown", "demo/a/b", "../in/demo"])
def test_no_spelling_of_an_address_is_redirected_or_not_found(proxy: Proxy, path: str) -> None:
    answer = requests.post(
        f"{proxy.origin}/api/v1/in/{path}", data=b"x", allow_redirects=False, timeout=10
    )
    assert answer.status_code in (200, 503)


def test_casewire_gone_is_a_503_that_hq_tries_again(
    name: str, certificate: Certificate, tmp_path: Path
) -> None:
    with running_proxy(name, Proxy(tmp_path / name, certificate, free_port())) as proxy:
        for method in ("POST", "PUT", "DELETE"):
            [record] = Repeater(url=address(proxy), scale=0).forward(
                [replace(PAYLOAD, method=method)]
            )
            assert [attempt.status for attempt in record.attempts] == [503] * 6
            assert "Not stored" in record.receipt
        for path in ("/api/v1/token", "/oauth/token"):
            answer = requests.post(proxy.origin + path, data=b"x", timeout=10)
            assert answer.status_code == 503


def test_wrong_credentials_are_counted_by_the_address_before_the_proxy(proxy: Proxy) -> None:
    def guess(source: str, number: int) -> int:
        with requests.Session() as session:
            session.mount("https://", Source(source))
            headers = {"X-Forwarded-For": f"10.0.0.{number}"}
            login = ("hq", f"wrong {proxy.port} {number}")
            url = address(proxy, "basic")
            return session.post(url, b"x", headers=headers, auth=login, timeout=10).status_code

    guesser, somebody = (f"127.1.{proxy.port % 256}.{last}" for last in (2, 3))
    found = [guess(guesser, number) for number in range(BURST + 5)]
    assert found[:BURST] == [401] * BURST
    assert found[-1] == 503, "what a client says of itself is not believed"
    assert guess(somebody, 0) == 401


class Source(HTTPAdapter):
    """Connects from an address of this machine."""

    def __init__(self, source: str) -> None:
        self._source = source
        super().__init__()

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **kwargs: Any
    ) -> None:
        source = (self._source, 0)
        super().init_poolmanager(connections, maxsize, block, source_address=source, **kwargs)
