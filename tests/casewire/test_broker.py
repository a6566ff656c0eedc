import base64
import shutil
import uuid
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from casewire.broker import KAFKA, Broker, cluster_id, fetch_jars
from schemas.errors import UnavailableError


def without_programs(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", str(folder))


def without_jars(folder: Path) -> Path:
    shutil.copy(KAFKA / "pom.xml", folder)
    return folder


def test_what_to_install_is_said_when_java_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_programs(monkeypatch, tmp_path)
    node = Broker(data_dir=tmp_path, host="127.0.0.1", port=1, controller_port=2)
    with pytest.raises(UnavailableError, match=r"needs Java 17.*apt-get install openjdk-17"):
        node.prepare()


def test_what_to_install_is_said_when_maven_is_missing_and_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_jars()
    without_programs(monkeypatch, tmp_path)
    fetch_jars()  # the jars are there: Maven is not asked for
    with pytest.raises(UnavailableError, match=r"needs Maven.*apt-get install"):
        fetch_jars(without_jars(tmp_path))


def test_what_maven_says_last_is_told_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho no such artifact\nexit 1\n", encoding="utf-8")
    maven.chmod(0o755)
    without_programs(monkeypatch, tmp_path)
    with pytest.raises(UnavailableError, match="with Maven failed: no such artifact"):
        fetch_jars(without_jars(tmp_path))
    assert not (tmp_path / "libs" / "pom.xml").exists()


@given(st.uuids())
def test_a_cluster_id_is_no_option_of_kafkas_tool(number: uuid.UUID) -> None:
    made = cluster_id(number)
    assert made[0].isalpha()
    assert len(base64.urlsafe_b64decode(made + "==")) == 16
