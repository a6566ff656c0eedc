import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from casewire.cli import run
from casewire.config import load_config
from casewire.init import write_starter
from ingress.secrets_store import sha256_text
from schemas.envelope import DOMAIN_PATTERN
from schemas.errors import ConfigError


def test_the_starter_is_a_right_configuration_with_a_private_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["init", "--domain", "my-project"], {}) == 0
    told = capsys.readouterr().out
    config = load_config(tmp_path / "casewire.toml", {})
    (credential,) = config.credentials
    assert list(config.domains) == ["my-project"]
    shown = re.search(r"Password +([0-9a-f]{64}) ", told)
    assert shown is not None
    assert credential.secret == sha256_text(shown[1])
    secret_file = tmp_path / "secrets" / "my-project"
    assert secret_file.stat().st_mode & 0o777 == 0o600
    for part in (
        "/api/v1/in/my-project", "HTTP Basic", credential.username,
        "Forward Cases", "Forward Forms", "JSON",
    ):  # fmt: skip
        assert part in told
    assert run(["init", "--domain", "my-project"], {}) == 1
    assert "casewire.toml is there already" in capsys.readouterr().err
    (tmp_path / "casewire.toml").unlink()
    assert run(["init", "--domain", "my-project"], {}) == 1
    assert "secrets/my-project is there already" in capsys.readouterr().err


@given(st.from_regex(DOMAIN_PATTERN, fullmatch=True))
def test_any_project_space_gets_a_right_configuration(
    tmp_path_factory: pytest.TempPathFactory, domain: str
) -> None:
    folder = tmp_path_factory.mktemp("starter")
    write_starter(folder, domain, "secret")
    assert list(load_config(folder / "casewire.toml", {}).domains) == [domain]


def test_a_wrong_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no project space"):
        write_starter(tmp_path, "My Project", "secret")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "casewire.toml").symlink_to(tmp_path / "nowhere" / "x")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_starter(tmp_path, "demo", "secret")
