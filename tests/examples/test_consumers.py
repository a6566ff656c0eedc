"""The example consumers run, and print the newest state of a case."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio
import orjson
import pytest

from tests.examples.conftest import GONE, KEY, Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
SCRIPTS: Final = ("python/latest_state.py", "kcat/latest-state.sh")
SECONDS: Final = 120


def arguments(cluster: Cluster, key: str = KEY) -> Sequence[str]:
    return [cluster.kafka.bootstrap_servers, key, cluster.kafka.topic("case-state")]


async def run(command: Sequence[str]) -> tuple[int, bytes, str]:
    """Run an example; return its exit code and what it printed on either stream."""
    with anyio.fail_after(SECONDS):
        done = await anyio.run_process(command, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


def need(program: str, package: str) -> None:
    assert shutil.which(program), f"{program} is missing: apt-get install {package}"


def script(name: str) -> Sequence[str]:
    if name.endswith(".py"):
        return [sys.executable, str(EXAMPLES / name)]
    need("kcat", "kcat")
    return [str(EXAMPLES / name)]


async def test_the_state_is_the_one_that_was_sent_last(cluster: Cluster) -> None:
    properties = orjson.loads(cluster.newest)["properties"]
    assert (properties["n"], properties["case_name"]) == ("abc", "Zoë")


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_script_prints_the_newest_state(cluster: Cluster, name: str) -> None:
    assert await run([*script(name), *arguments(cluster)]) == (0, cluster.newest + b"\n", "")


async def test_java_prints_the_newest_state(cluster: Cluster, tmp_path: Path) -> None:
    need("mvn", "maven")
    need("javac", "openjdk-17-jdk-headless")
    project = tmp_path / "java"
    shutil.copytree(EXAMPLES / "java", project, ignore=shutil.ignore_patterns("target"))
    maven = ["mvn", "-q", "-B", "-f", str(project), "compile", "exec:java"]
    given = "-Dexec.args=" + " ".join(arguments(cluster))
    code, out, said = await run([*maven, given])
    # Debian's Maven ends colours when it ends, also those that it never began.
    assert (code, out.replace(b"\x1b[0m", b"")) == (0, cluster.newest + b"\n"), said


@pytest.mark.parametrize("key", ["demo/nobody", GONE])
@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_case_that_is_not_there_or_not_any_more_is_told(
    cluster: Cluster, name: str, key: str
) -> None:
    code, out, said = await run([*script(name), *arguments(cluster, key)])
    assert (code, out) == (1, b"")
    assert f"there is no state of {key}" in said


async def test_dead_letters_are_printed_with_the_body_as_it_was(cluster: Cluster) -> None:
    topic = cluster.kafka.topic("dead-letters")
    command = [*script("python/dead_letters.py"), cluster.kafka.bootstrap_servers, topic]
    code, out, said = await run(command)
    assert (code, said) == (0, "")
    assert b" decode malformed_xml: " in out
    assert b"\n<broken\n" in out
