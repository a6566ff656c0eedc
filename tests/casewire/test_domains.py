from pathlib import Path

import orjson
import pytest

from casewire.cli import run

TWO = """
[domains.open]
[domains.demo]
[credentials.hq]
domains = ["demo"]
kind = "basic"
username = "commcare-hq"
secret_file = "secret"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("synthetic-password")
    (tmp_path / "secret").chmod(0o600)
    return tmp_path


def test_each_project_space_is_listed_with_its_address_and_logins_and_no_secret(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "casewire.toml").write_text(TWO)
    assert run(["domains"], {}) == 0
    demo, open_to_all = capsys.readouterr().out.splitlines()
    assert demo.split("  ") == ["demo", "https://YOUR-HOST/api/v1/in/demo", "basic hq"]
    assert open_to_all.endswith("/api/v1/in/open  open to everybody")
    assert run(["domains", "--json"], {}) == 0
    told = capsys.readouterr().out
    assert [each["domain"] for each in orjson.loads(told)] == ["demo", "open"]
    assert "synthetic-password" not in told


@pytest.mark.parametrize(
    ("settings", "what"), [("", "taken from everybody"), ('unknown_domains = "refuse"', "refused")]
)
def test_without_project_spaces_it_says_what_becomes_of_requests(
    folder: Path, capsys: pytest.CaptureFixture[str], settings: str, what: str
) -> None:
    (folder / "casewire.toml").write_text(f"[ingress]\n{settings}\n")
    assert run(["domains"], {}) == 0
    assert what in capsys.readouterr().out
