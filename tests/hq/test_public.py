"""`casewire doctor --public` through real proxies: what it finds, and that it stores nothing."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import formatdate
from pathlib import Path

import aiohttp
import orjson
import pytest

from casewire.cli import run
from casewire.doctor.public import (
    Heard,
    Site,
    age_problems,
    connection_problems,
    plain_problems,
    private_problems,
    refusal_problem,
    size_problem,
)
from schemas.settings import KafkaSettings
from tests.hq.captured import records
from tests.hq.certificates import Certificate, make_certificate
from tests.hq.ingress import Ingress, running_ingress
from tests.hq.proxies import START_SECONDS, Proxy, caddy, changed, nginx, running

pytestmark = pytest.mark.kafka

DAY = 86_400
WAYS_TO_BREAK_NGINX = {
    "underscores_in_headers on;": ("", "answer", "underscores_in_headers on"),
    "client_max_body_size 64m": ("client_max_body_size 1m", "size", "raise the limit of the proxy"),
    "location /api/v1/ {": (
        "location /api/v1/ { auth_basic staff; auth_basic_user_file /dev/null;",
        "answer",
        "let no proxy ask for credentials of its own",
    ),
    "location = /oauth/token {": ("location = /moved {", "tokens", "POST /oauth/token is answered"),
    "proxy_pass http://casewire;          #": (
        "return 301 https://elsewhere.example.org; #",
        "answer",
        "GET is redirected to https://elsewhere.example.org",
    ),
    "location / {\n        return 404;": (
        "location / {\n        return 200 'casewire_spool_events 0';",
        "metrics",
        "everybody can read /metrics",
    ),
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def ingress(topics: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    """An ingress with a project space that asks for credentials, and one that does not."""
    folder = tmp_path_factory.mktemp("ingress")
    secret = folder / "secret"
    secret.write_text("password-of-hq", encoding="utf-8")
    secret.chmod(0o600)
    tables = (
        '[domains.demo]\n[domains.closed]\n[credentials.hq]\nkind = "basic"\nusername = "hq"\n'
        f'domains = ["closed"]\nsecret_file = "{secret}"\n'
    )
    keys = 'trusted_proxies = ["127.0.0.1"]\n'
    with running_ingress(Ingress(folder, topics, tables, keys)) as one:
        yield one


def own_authority(proxy: Proxy) -> Sequence[str]:
    """Run the example's Caddyfile with Caddy's own authority instead of a public one."""
    text = changed(
        "Caddyfile",
        {
            "\n{\n": "\n{\n\tadmin off\n\tskip_install_trust\n",
            "\ncasewire.example.org {": f"\nhttps://localhost:{proxy.port} {{\n\ttls internal",
            "http://casewire.example.org": proxy.plain_origin,
            "127.0.0.1:8080": f"127.0.0.1:{proxy.upstream}",
        },
    )
    config = proxy.folder / "Caddyfile"
    config.write_text(text, encoding="utf-8")
    return ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"]


def root_of(proxy: Proxy) -> Path:
    """Return Caddy's own authority, once it has made the certificate: it listens before."""
    deadline = time.monotonic() + START_SECONDS
    root = proxy.folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    while True:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", proxy.port)) as to,
        ):
            trusting = ssl.create_default_context(cafile=root)
            trusting.wrap_socket(to, server_hostname="localhost").close()
            return root
        assert time.monotonic() < deadline, (proxy.folder / "log").read_text()
        time.sleep(0.05)


def nginx_with(old: str, new: str) -> Callable[[Proxy], Sequence[str]]:
    """Run the example of nginx with something changed in it."""

    def make(proxy: Proxy) -> Sequence[str]:
        command = nginx(proxy)
        config = proxy.folder / "nginx.conf"
        text = config.read_text(encoding="utf-8")
        assert text.count(old) == 1, old
        config.write_text(text.replace(old, new), encoding="utf-8")
        return command

    return make


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> "Doctor":
    return Doctor(capsys, monkeypatch)


class Doctor:
    """Asks `casewire doctor --public`; an authority is trusted beside the public ones."""

    def __init__(self, capsys: pytest.CaptureFixture[str], env: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._env = env

    def found(self, url: str, authority: Path | None) -> Mapping[str, str]:
        """Return what it finds, but that HQ does not connect to this machine, by area."""
        if authority is not None:
            self._env.setenv("SSL_CERT_FILE", str(authority))
        assert run(["doctor", "--public", url, "--json"], {}) == 1
        problems = orjson.loads(self._capsys.readouterr().out)
        here = [each for each in problems if "connects to public addresses only" in each["text"]]
        assert here, "HQ cannot reach this machine"
        return {each["area"]: each["text"] for each in problems if each not in here}


def url(proxy: Proxy, host: str = "127.0.0.1", domain: str = "closed") -> str:
    return f"https://{host}:{proxy.port}/api/v1/in/{domain}"


def test_nothing_is_wrong_behind_caddy_but_that_this_machine_is_not_public(
    ingress: Ingress, certificate: Certificate, tmp_path: Path, doctor: Doctor
) -> None:
    before = len(records(ingress.kafka))
    with running(own_authority, Proxy(tmp_path / "caddy", certificate, ingress.port)) as proxy:
        root = root_of(proxy)
        assert doctor.found(url(proxy, "localhost"), root) == {}
        assert "from anybody" in doctor.found(url(proxy, "localhost", "demo"), root)["answer"]
        unknown = doctor.found(url(proxy, "localhost", "unknown"), root)
        assert "[domains.NAME]" in unknown["answer"]
    assert len(records(ingress.kafka)) == before


def test_nothing_is_wrong_behind_nginx_and_who_signed_is_looked_at(
    ingress: Ingress, certificate: Certificate, tmp_path: Path, doctor: Doctor
) -> None:
    with running(nginx, Proxy(tmp_path / "nginx", certificate, ingress.port)) as proxy:
        assert "no complete chain" in doctor.found(url(proxy), None)["certificate"]
        assert doctor.found(url(proxy), certificate.authority) == {}
        other = doctor.found(url(proxy, "localhost"), certificate.authority)
        assert "is for another name" in other["certificate"]


@pytest.mark.parametrize("old", WAYS_TO_BREAK_NGINX)
def test_what_a_proxy_does_wrong_is_told(
    ingress: Ingress, certificate: Certificate, tmp_path: Path, doctor: Doctor, old: str
) -> None:
    new, area, text = WAYS_TO_BREAK_NGINX[old]
    make = nginx_with(old, new)
    with running(make, Proxy(tmp_path / "nginx", certificate, ingress.port)) as proxy:
        assert text in doctor.found(url(proxy), certificate.authority)[area]


def test_a_proxy_without_an_ingress_is_told(
    certificate: Certificate, tmp_path: Path, doctor: Doctor
) -> None:
    with running(caddy, Proxy(tmp_path / "caddy", certificate, upstream=9)) as proxy:
        found = doctor.found(url(proxy), certificate.authority)
    assert "Casewire is not running" in found["answer"]


async def plain(proxy: Proxy) -> list[tuple[str, str]]:
    async with aiohttp.ClientSession() as session:
        return [each async for each in plain_problems(proxy.plain_origin, session)]


def test_an_http_address_that_redirects_loses_what_is_sent_there_by_mistake(
    certificate: Certificate, tmp_path: Path
) -> None:
    old = 'return 503 "Not stored: forward to the https address.\\n";'
    redirecting = nginx_with(old, "return 301 https://$host$request_uri;")
    with running(redirecting, Proxy(tmp_path / "wrong", certificate, upstream=9)) as proxy:
        ((area, text),) = asyncio.run(plain(proxy))
    assert (area, "loses each event" in text) == ("answer", True)
    with running(nginx, Proxy(tmp_path / "right", certificate, upstream=9)) as proxy:
        assert asyncio.run(plain(proxy)) == []
    assert asyncio.run(plain(proxy)) == []


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("http://casewire.example.org/api/v1/in/demo", "no https address"),
        ("https://casewire.example.org/", "forward to /api/v1/in/DOMAIN"),
        ("https://casewire.example.org/api/v1/in/Demo", "in lower case"),
        ("https://hq:x@casewire.example.org/api/v1/in/demo", "Connection Settings"),
        (f"https://casewire.example.org/api/v1/in/demo/{'x' * 255}", "255 characters"),
    ],
)
def test_an_address_that_hq_or_casewire_cannot_take_is_told(wrong: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Site.parse(wrong)


def test_addresses_that_hq_does_not_connect_to_are_told() -> None:
    public = {"93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"}
    assert not [*private_problems("x", public)]
    private = {"10.1.2.3", "192.168.1.4", "169.254.1.1", "::1", "fe80::1%eth0", "224.0.0.1"}
    assert len([*private_problems("x", public | private)]) == len(private)


def test_a_certificate_is_due_in_the_last_fifth_of_its_life_at_most_fourteen_days() -> None:
    def due(days: float, left: float) -> bool:
        now = 1_790_000_000.0
        begin, end = ssl_time(now - (days - left) * DAY), ssl_time(now + left * DAY)
        return bool([*age_problems(begin, end, now)])

    assert [due(90, 15), due(90, 13), due(0.5, 0.2), due(0.5, 0.05)] == [False, True, False, True]


def ssl_time(seconds: float) -> str:
    _, day, month, year, clock, zone = formatdate(seconds, usegmt=True).split()
    return f"{month} {day} {clock} {year} {zone}"


def test_who_refuses_a_large_body_or_a_method_is_told() -> None:
    assert "[ingress] max_body_bytes" in size_problem("The body is larger than 5 bytes")
    assert "the proxy" in size_problem("<html>413")
    assert "instead of Casewire's 401" in refusal_problem("PUT", Heard(405, {}, ""))
    later = "Not stored, send it again later: wait.\n"
    assert "wait" in refusal_problem("PUT", Heard(503, {}, later))
    assert "404" in "".join(connection_problems(Heard(404, {}, "")))
    assert "500" in "".join(connection_problems(Heard(500, {}, "")))
