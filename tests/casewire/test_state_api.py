import os
from pathlib import Path

import pytest

from casewire.addresses import Address
from casewire.config import Config, load_config
from casewire.health import Running, announce
from casewire.state_api import make_token, read_token, told_address
from casewire.up import welcome
from schemas.errors import ConfigError


def config(folder: Path, token_file: str = "") -> Config:
    env = {"CASEWIRE_DATA_DIR": str(folder), "CASEWIRE_STREAMS__TOKEN_FILE": token_file}
    return load_config(None, env)


def test_a_token_is_made_once_and_for_us_alone(tmp_path: Path) -> None:
    made = make_token(config(tmp_path))
    assert len(bytes.fromhex(made)) == 32
    assert make_token(config(tmp_path)) == read_token(config(tmp_path)) == made
    assert (tmp_path / "state-api.token").stat().st_mode & 0o777 == 0o600


def test_a_token_that_is_missing_too_short_or_no_text_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "mine"
    ours = config(tmp_path, str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        make_token(ours)
    file.write_text("short\n")
    with pytest.raises(ConfigError, match="openssl rand -hex 32"):
        make_token(ours)
    file.write_bytes(b"\xff" * 64)
    with pytest.raises(ConfigError, match="not ASCII"):
        make_token(ours)
    file.write_text("x" * 32 + "\n")
    assert make_token(ours) == "x" * 32


def test_an_address_for_all_is_told_by_the_machines_name() -> None:
    assert told_address(Address("10.0.0.1", 1)) == "10.0.0.1:1"
    for_all = Address("0.0.0.0", 2)  # noqa: S104 - told, not bound
    assert told_address(for_all) == f"{os.uname().nodename}:2"


def test_a_welcome_tells_where_states_are(tmp_path: Path) -> None:
    ours = config(tmp_path)
    me = Running.of("streams", os.getpid(), Address("127.0.0.1", 1), "127.0.0.1:8083")
    announce(ours.run_dir, me)
    assert f"http://127.0.0.1:8083/api/v1, token in {tmp_path}/state-api.token" in welcome(ours)
