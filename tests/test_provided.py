"""Whichever servers the tests are given, the same ones pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.provided import Kind, kind_of
from tests.servers import running_kafka, running_postgres

#: From the ingress to both databases, what a sink promises, and topics with their settings.
CHOSEN = (
    "tests/end_to_end/test_samples.py", "tests/contract/test_sink.py",
    "tests/casewire/test_topics.py", "tests/ingress/test_publisher.py",
)  # fmt: skip


def run_chosen(kind: Kind, **env: str) -> str:
    """Run the chosen tests on servers of that kind; return what pytest says."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-cov", *CHOSEN]
    done = subprocess.run(
        command,
        env={**os.environ, "TEST_SERVERS": kind, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    assert "skipped" not in done.stdout
    return done.stdout


@pytest.mark.nightly
def test_the_same_tests_pass_on_programs_of_this_machine() -> None:
    said = run_chosen("local")
    assert "Kafka: jars of this machine" in said
    assert "PostgreSQL: programs of this machine" in said


@pytest.mark.nightly
def test_the_same_tests_pass_on_servers_that_are_given_twice(tmp_path: Path) -> None:
    with running_kafka(tmp_path / "kafka") as kafka, running_postgres() as postgres:
        given = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "TEST_POSTGRES_URL": postgres.address,
        }
        for _ in range(2):
            said = run_chosen("external", **given)
            assert f"Kafka: the one at {kafka.bootstrap_servers}" in said
            assert f"PostgreSQL: the one at port {postgres.port}" in said


@pytest.mark.parametrize(
    ("forced", "address", "image", "kind"),
    [
        ("", "", "", "local"),
        ("", "kafka:9092", "image", "external"),
        ("", "", "image", "docker"),
        ("local", "kafka:9092", "image", "local"),
        ("docker", "kafka:9092", "image", "docker"),
        ("external", "kafka:9092", "image", "external"),
    ],
)
def test_there_is_always_a_server(forced: str, address: str, image: str, kind: Kind) -> None:
    assert kind_of(forced, address, lambda: image) == kind


@pytest.mark.parametrize(
    ("forced", "said"),
    [
        ("external", "set KAFKA_BOOTSTRAP_SERVERS and TEST_POSTGRES_URL"),
        ("docker", "start an engine that has the images"),
        ("none", "it is one of"),
    ],
)
def test_a_server_that_is_forced_and_not_there_ends_the_run(forced: str, said: str) -> None:
    with pytest.raises(pytest.UsageError, match=said):
        kind_of(forced, "", lambda: "")
