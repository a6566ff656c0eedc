"""`[kafka]`'s login, checked whole before anything starts."""

import re
from pathlib import Path

import pytest

from casewire.config import load_config
from tests.casewire.test_config import complaints, load
from tests.hq.certificates import make_certificate

BROKERS = 'bootstrap_servers = "kafka:9093"\n'
SCRAM = f'[kafka]\n{BROKERS}security_protocol = "SASL_PLAINTEXT"\nsasl_username = "casewire"\n'
TOKENS = (
    f'[kafka]\n{BROKERS}security_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "OAUTHBEARER"\n'
    'oauth_token_url = "https://login.example.org/token"\noauth_client_id = "casewire"\n'
)


def test_secrets_are_read_from_files_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hidden\n")
    kafka = load(tmp_path, f'{SCRAM}sasl_password_file = "password"\n').cluster
    assert (kafka.sasl_username, kafka.sasl_password) == ("casewire", "hidden")
    assert kafka.sasl_mechanism == "SCRAM-SHA-512"
    kafka = load(tmp_path, f'{TOKENS}oauth_client_secret_file = "password"\n').cluster
    assert (kafka.oauth_client_id, kafka.oauth_client_secret) == ("casewire", "hidden")


def test_the_environment_gives_a_login_without_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hidden\n")
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": "kafka:9093",
        "CASEWIRE_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "CASEWIRE_KAFKA__SASL_USERNAME": "casewire",
        "CASEWIRE_KAFKA__SASL_PASSWORD_FILE": str(tmp_path / "password"),
    }
    assert load_config(None, env).cluster.sasl_password == "hidden"


def test_certificates_are_found_beside_the_configuration(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    files = 'ca_file = "ca.pem"\ncert_file = "server.pem"\nkey_file = "server.key"\n'
    kafka = load(tmp_path, f'[kafka]\n{BROKERS}security_protocol = "SSL"\n{files}').cluster
    assert kafka.key_file == str(tmp_path / "server.key")


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ('[kafka]\nsecurity_protocol = "SSL"', "security_protocol: is for brokers of yours"),
        (f'[kafka]\n{BROKERS}security_protocol = "TLS"', "security_protocol: invalid enum"),
        (f'[kafka]\n{BROKERS}ca_file = "ca.pem"', "ca_file: is not used by PLAINTEXT"),
        (f'[kafka]\n{BROKERS}sasl_username = "u"', "sasl_username: is not used by PLAINTEXT"),
        (SCRAM, "sasl_password_file: missing; SASL_PLAINTEXT with SCRAM-SHA-512 needs it"),
        (f'{SCRAM}sasl_password_file = "nowhere"', "sasl_password_file: .* cannot be read"),
        (
            f'{SCRAM}sasl_password_file = "empty"\nsasl_password = "p"',
            "sasl_password: stands beside sasl_password_file",
        ),
        (f'{SCRAM}sasl_password = "p"\noauth_client_id = "i"', "oauth_client_id: is not used by"),
        (TOKENS, "oauth_client_secret_file: missing; SASL_PLAINTEXT with OAUTHBEARER needs it"),
        (
            TOKENS.replace("https://", "http://") + 'oauth_client_secret = "s"',
            "oauth_token_url: would show the secret to the network; write https://HOST/PATH",
        ),
        (
            f'[kafka]\n{BROKERS}security_protocol = "SSL"\nca_file = "empty"',
            r"ca_file: .*/empty cannot be read as PEM \(.*\); correct the file",
        ),
        (
            f'[kafka]\n{BROKERS}security_protocol = "SSL"\ncert_file = "empty"',
            r"cert_file: .*/empty and its key cannot be read as PEM",
        ),
        (
            f'[kafka]\n{BROKERS}security_protocol = "SSL"\nkey_file = "empty"',
            "key_file: goes with cert_file",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_key(tmp_path: Path, toml: str, complaint: str) -> None:
    (tmp_path / "empty").write_text("")
    said = complaints(tmp_path, toml)
    assert said.startswith("[kafka] ")
    assert re.search(complaint, said), said
