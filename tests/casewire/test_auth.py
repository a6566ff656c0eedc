"""casewire auth: what it writes, what it says, and what it refuses."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import orjson
import pytest
from hypothesis import given, strategies as st

from casewire.auth import next_name
from casewire.auth_file import locked, read_entries, write_entries
from casewire.cli import run
from casewire.config import load_config
from ingress.auth import Credential
from ingress.secrets_store import Hashed, Scrypt, ha1_text, parse_secret, sha256_text
from ingress.settings import CredentialSettings
from schemas.errors import ConfigError, UnavailableError

CONFIG = """\
# Edited by people.
[domains.demo]
[domains.two]
[credentials.own]
domains = ["demo"]
kind = "basic"
username = "hq"
secret_file = "own"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "casewire.toml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "own").write_text("plain", encoding="utf-8")
    (tmp_path / "password").write_text("chosen by a person\n", encoding="utf-8")
    return tmp_path


def auth(*arguments: str) -> int:
    return run(["auth", *arguments], {})


def credentials(folder: Path) -> dict[str, Credential]:
    return {each.name: each for each in load_config(folder / "casewire.toml", {}).credentials}


@pytest.mark.parametrize("kind", ["basic", "digest", "api-key", "bearer", "oauth2"])
def test_a_made_secret_is_shown_once_and_stored_as_what_proves_it(
    folder: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    user = ["--username", "hq"] if kind != "api-key" else ["--header", "X-Casewire-Key"]
    assert auth("add", "hq", "--domain", "demo", "--domain", "two", "--kind", kind, *user) == 0
    told = capsys.readouterr().out
    secrets = re.findall(r"\b[0-9a-f]{64}\b", told)
    assert len(secrets) == 1
    for part in ("/api/v1/in/demo", "/api/v1/in/two", user[1], "Authentication Type"):
        assert part in told
    stored = credentials(folder)["hq"]
    assert list(stored.domains) == ["demo", "two"]
    expected = ha1_text("hq", secrets[0]) if kind == "digest" else sha256_text(secrets[0])
    assert stored.secret == expected
    for file in (folder / "credentials.toml", folder / "secrets" / "hq"):
        assert file.stat().st_mode & 0o777 == 0o600
        assert secrets[0] not in file.read_text()
    assert (folder / "casewire.toml").read_text() == CONFIG
    assert auth("list") == 0
    assert secrets[0] not in capsys.readouterr().out


def test_a_password_of_a_person_is_stored_as_scrypt_and_not_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add = ["add", "hq", "--domain", "two", "--kind", "basic", "--username", "u"]
    assert auth(*add, "--password-file", "password") == 0
    assert "chosen" not in capsys.readouterr().out
    stored = parse_secret(credentials(folder)["hq"].secret)
    assert isinstance(stored, Scrypt)
    assert stored.proves(b"chosen by a person")
    assert not stored.proves(b"chosen by a persom")


def test_rotation_adds_a_second_secret_and_revocation_takes_one_away(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert auth("rotate", "own") == 0
    told = capsys.readouterr().out
    (new,) = set(credentials(folder)) - {"own"}
    assert re.fullmatch(r"own-\d{8}", new)
    assert f"Added {new} beside own" in told
    assert "casewire auth revoke own" in told
    old, added = credentials(folder)["own"], credentials(folder)[new]
    assert (added.kind, added.username, list(added.domains)) == ("basic", "hq", ["demo"])
    assert isinstance(parse_secret(added.secret), Hashed)
    assert added.secret != old.secret
    assert auth("rotate", new) == 0
    third = f"{new}-2"
    assert auth("revoke", new) == 0
    assert set(credentials(folder)) == {"own", third}
    assert [file.name for file in (folder / "secrets").iterdir()] == [third]


def test_the_list_tells_all_but_the_secrets(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert auth("add", "key", "--domain", "two", "--kind", "api-key") == 0
    capsys.readouterr()
    assert auth("list", "--json") == 0
    own = {
        "name": "own", "kind": "basic", "domains": ["demo"], "username": "hq",
        "stored_as": "plain", "file": "casewire.toml",
    }  # fmt: skip
    key = {
        "name": "key", "kind": "api-key", "domains": ["two"], "username": "",
        "stored_as": "sha256", "file": "credentials.toml",
    }  # fmt: skip
    assert orjson.loads(capsys.readouterr().out) == [own, key]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("add own --domain demo --kind basic --username u", "there is a credential own already"),
        ("add x --domain none --kind api-key", "no project space 'none'"),
        ("add X --domain demo --kind api-key", "'X' is no name"),
        ("add x --domain demo --kind digest", "give --username"),
        ("add x --domain demo --kind basic --username a:b", "give --username"),
        ("add x --domain demo --kind api-key --password-file none", "none cannot be read"),
        ("add x --domain demo --kind api-key --password-file empty", "empty is empty"),
        ("add taken --domain demo --kind api-key", "taken is there already"),
        ("rotate none", "there is no credential none"),
        ("revoke none", "there is no credential none"),
        ("revoke own", "stands in casewire.toml"),
        ("revoke last", "last credential of two"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, complaint: str
) -> None:
    assert auth("add", "last", "--domain", "two", "--kind", "api-key") == 0
    (folder / "empty").write_text("\n")
    (folder / "secrets" / "taken").write_text("x")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert auth(*arguments.split()) == 1
    assert complaint in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("keys", "secret", "complaint"),
    [
        ('kind = "basic"', "x", "[credentials.c] username: missing; basic needs one"),
        ('kind = "digest"', "x", "[credentials.c] username: missing; digest needs one"),
        ('kind = "oauth2"', "x", "[credentials.c] username: missing; oauth2 needs one"),
        ('kind = "basic"\nusername = "a:b"', "x", "[credentials.c] username: has a colon"),
        ('kind = "magic"', "x", "[credentials.c] kind: "),
        ('kind = "api-key"\nheader = "X Key"', "x", "[credentials.c] header: "),
        ('kind = "api-key"', "sha256:12", "c.secret: is no right sha256: secret"),
        ('kind = "api-key"', "scrypt:40:8:5:00:00", "c.secret: is no right scrypt: secret"),
        ('kind = "api-key"', f"scrypt:26:8:5:{'0' * 32}:{'0' * 64}", "no right scrypt: secret"),
        ('kind = "api-key"', f"ha1:{'0' * 32}", "ha1: secret is for the kind digest only"),
        ('kind = "digest"\nusername = "u"', "ha1:12", "c.secret: is no right ha1: secret"),
        ('kind = "digest"\nusername = "u"', f"sha256:{'0' * 64}", "digest cannot use a sha256:"),
    ],
)
def test_a_wrong_credential_is_named_before_anything_starts(
    folder: Path, keys: str, secret: str, complaint: str
) -> None:
    (folder / "c.secret").write_text(secret)
    table = f'[credentials.c]\ndomains = ["demo"]\nsecret_file = "c.secret"\n{keys}\n'
    (folder / "credentials.toml").write_text(table)
    with pytest.raises(ConfigError) as raised:
        load_config(folder / "casewire.toml", {})
    assert complaint in str(raised.value)
    assert "000000" not in str(raised.value)


def test_without_a_configuration_there_is_nothing_to_add_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert auth("add", "x", "--domain", "demo", "--kind", "api-key") == 1
    assert "casewire init" in capsys.readouterr().err
    assert auth("list") == 0
    assert "casewire auth add" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_one_sentence_and_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "secrets").write_text("not a folder")
    assert auth("add", "x", "--domain", "demo", "--kind", "api-key") == 1
    assert "secrets/x cannot be written" in capsys.readouterr().err
    (folder / "secrets").unlink()
    (folder / "secrets").mkdir()
    (folder / "credentials.toml").mkdir()
    with pytest.raises(UnavailableError, match=r"credentials\.toml cannot be written"):
        write_entries(folder, {})
    assert not list(folder.glob("credentials.toml.*"))


def test_commands_at_once_lose_nothing(folder: Path) -> None:
    def add(number: int) -> None:
        with locked(folder):
            entries = read_entries(folder)
            entry = CredentialSettings(domains=["demo"], kind="api-key", secret_file="own")
            write_entries(folder, entries | {f"c{number}": entry})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(40)))
    assert set(read_entries(folder)) == {f"c{number}" for number in range(40)}


@given(st.text(st.characters(codec="utf-8")), st.lists(st.text(st.characters(codec="utf-8"))))
def test_any_text_comes_back_from_the_file(
    tmp_path_factory: pytest.TempPathFactory, text: str, domains: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("auth")
    entry = CredentialSettings(domains=domains, kind="basic", secret_file=text, username=text)
    write_entries(folder, {text: entry})
    assert read_entries(folder) == {text: entry}


def test_the_next_name_is_free_and_does_not_grow() -> None:
    today = date(2026, 11, 22)
    assert next_name("hq", {"hq"}, today) == "hq-20261122"
    assert next_name("hq-20250101", {"hq-20250101"}, today) == "hq-20261122"
    assert next_name("hq", {"hq", "hq-20261122"}, today) == "hq-20261122-2"
    assert next_name("hq-20261122-2", {"hq-20261122", "hq-20261122-2"}, today) == "hq-20261122-3"
