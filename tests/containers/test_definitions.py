"""What docker/ says, as far as it can be told without an engine."""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from casewire.broker import ROOT
from casewire.config import load_config
from casewire.console.users import password_of, read_users

DOCKER = ROOT / "docker"
#: The only one that runs once.
ONCE = "topics"


def services(name: str) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = yaml.safe_load((DOCKER / name).read_text())["services"]
    return found


def pins(file: Path) -> Mapping[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", file.read_text(), re.MULTILINE))


def test_every_service_is_hardened_and_its_image_is_named_in_env() -> None:
    named = {line.partition("=")[0] for line in (DOCKER / ".env").read_text().splitlines()}
    for name, service in services("compose.yaml").items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        image = re.fullmatch(r"\$\{([A-Z_]+)\}", service["image"])
        assert image is not None, name
        assert image[1] in named, name


def test_prometheus_and_the_doctor_ask_every_process_of_ours() -> None:
    ours = {
        name
        for name, service in services("compose.yaml").items()
        if service["image"] == "${CASEWIRE_IMAGE}" and name != ONCE
    }
    settings = yaml.safe_load((DOCKER / "monitoring/prometheus.yml").read_text())
    jobs = {job["job_name"]: job["static_configs"] for job in settings["scrape_configs"]}
    scraped = {
        target.partition(":")[0]: group["labels"]["casewire_role"]
        for group in jobs["casewire"]
        for target in group["targets"]
    }
    assert scraped == {name: name.removesuffix("-1").removesuffix("-2") for name in ours}
    config = tomllib.loads((DOCKER / "casewire.toml").read_text())
    assert {each.removesuffix(":9400") for each in config["processes"]} == ours


def test_on_the_cluster_every_process_of_ours_knows_the_three_brokers() -> None:
    cluster = services("compose.cluster.yaml")
    for name, service in services("compose.yaml").items():
        if service["image"] == "${CASEWIRE_IMAGE}":
            assert cluster[name]["environment"]["KAFKA_BOOTSTRAP_SERVERS"].count(",") == 2, name


@pytest.mark.parametrize("lock", ["requirements.lock", "build.lock"])
def test_the_image_has_the_versions_that_the_tests_have(lock: str) -> None:
    tested = pins(ROOT / "requirements.lock")
    image = pins(DOCKER / lock)
    assert image
    assert {name: version for name, version in image.items() if tested.get(name) != version} == {}


def test_every_package_gets_into_the_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = (DOCKER / "Dockerfile").read_text().splitlines()
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert [name for name in packages if f"COPY {name} {name}" not in copied] == []
    assert [name for name in packages if f"!{name}" not in sent] == []


def test_setup_makes_a_configuration_that_is_right(tmp_path: Path) -> None:
    for name in ("setup", "casewire.toml"):
        shutil.copy(DOCKER / name, tmp_path / name)
    done = subprocess.run(
        [tmp_path / "setup", "my-project", "casewire.example.org"],
        capture_output=True,
        text=True,
        check=True,
    )
    env = {"KAFKA_BOOTSTRAP_SERVERS": "broker:9092", "CASEWIRE_DATA_DIR": str(tmp_path)}
    config = load_config(tmp_path / "local/config/casewire.toml", env)
    stored = read_users(tmp_path / "local/config/secrets/console-users")["operator"]
    password = done.stdout.partition("user operator, password ")[2].split()[0]
    assert password_of(stored).proves(password.encode())
    (credential,) = config.credentials
    assert credential.domains == ["my-project"]
    assert (tmp_path / "local/caddy.env").read_text() == "CASEWIRE_HOST=casewire.example.org\n"
    assert "https://casewire.example.org/api/v1/in/my-project" in done.stdout
    assert config.console.ingress_url == "https://casewire.example.org"
    assert (tmp_path / "local").stat().st_mode & 0o077 == 0
    again = subprocess.run(
        [tmp_path / "setup", "my-project"], capture_output=True, text=True, check=False
    )
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
