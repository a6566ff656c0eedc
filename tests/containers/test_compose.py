"""docker/compose.yaml on a real engine: a project comes in by TLS and ends in PostgreSQL."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

from casewire.truth import Truth
from tests.containers.engine import Engine
from tests.containers.stack import DOMAIN, Stack, await_right_rows, running_stack, wait_until

pytestmark = pytest.mark.nightly

#: Java's way to say that a SIGTERM ended it in order.
TERMINATED = 143


@pytest.fixture(scope="module")
def stack(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("compose") / "casewire"
    with running_stack(engine, folder, ["compose.yaml"]) as running:
        yield running


def running_services(stack: Stack) -> list[str]:
    """Return all but the one that ends by itself; what others need comes last."""
    needed = ("postgres", "broker")
    others = [name for name in stack.services if name not in ("topics", *needed)]
    return [*others, *needed]


def test_a_project_ends_in_the_right_rows(stack: Stack) -> None:
    assert stack.send(1, "--cases", "60", "--changes", "300").wait(300) == 0
    await_right_rows(stack)
    assert "nothing is wrong" in stack.compose("exec", "-T", "streams-1", "casewire", "doctor")


def test_caddy_passes_what_hq_calls_and_nothing_else(stack: Stack) -> None:
    secure = f"https://localhost:{stack.ports['HTTPS_PORT']}"
    plain = f"http://localhost:{stack.ports['HTTP_PORT']}"
    trusted = str(stack.certificate)
    wanted = {f"{secure}/api/v1/in/{DOMAIN}": 401, f"{secure}/metrics": 404, f"{plain}/api": 503}
    answers = {url: requests.get(url, verify=trusted, timeout=10).status_code for url in wanted}
    assert answers == wanted


def test_no_container_is_root_or_writes_to_its_image(stack: Stack) -> None:
    for service in running_services(stack):
        found = stack.engine.inspect(stack.container(service))
        lines = Path(f"/proc/{found['State']['Pid']}/status").read_text(encoding="utf-8")
        told = dict(line.split(":", 1) for line in lines.splitlines())
        assert "0" not in told["Uid"].split(), service
        assert told["NoNewPrivs"].strip() == "1", service
        assert int(told["CapEff"], 16) == 0, service
        assert found["HostConfig"]["ReadonlyRootfs"], service


def test_the_console_asks_who_is_there(stack: Stack) -> None:
    answer = requests.get(f"http://localhost:{stack.ports['CONSOLE_PORT']}/", timeout=10)
    assert answer.url.partition("?")[0].endswith("/login")
    assert answer.status_code == 200


def told(url: str) -> Mapping[str, Any]:
    data: Mapping[str, Any] = requests.get(url, timeout=10).json()["data"]
    return data


def test_prometheus_has_every_target_up_and_the_rules(stack: Stack) -> None:
    place = f"http://localhost:{stack.ports['PROMETHEUS_PORT']}/api/v1"
    roles = {
        "ingress-1",
        "ingress-2",
        "streams-1",
        "streams-2",
        "sink-warehouse",
        "alerts",
        "console",
    }

    def targets() -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = told(f"{place}/targets")["activeTargets"]
        return found

    wait_until(lambda: all(target["health"] == "up" for target in targets()), 60)
    assert {target["labels"]["instance"].partition(":")[0] for target in targets()} >= roles
    assert len(told(f"{place}/alertmanagers")["activeAlertmanagers"]) == 1
    rules = [rule for group in told(f"{place}/rules")["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule.get("lastError")] == []


def test_states_are_told_whichever_worker_runs(stack: Stack) -> None:
    sent = (
        f"echo {stack.password} | casewire simulate --user commcare-hq --password-file /dev/stdin"
        f" --to http://localhost:8080/api/v1/in/{DOMAIN} --cases 5 --changes 10 --seed 5"
        " --truth /tmp/truth.json > /dev/null && cat /tmp/truth.json"
    )
    truth = Truth.from_json(stack.compose("exec", "-T", "ingress-1", "sh", "-c", sent).encode())
    case_id = next(case_id for case_id, case in truth.cases.items() if not case.deleted)
    ask = ("exec", "-T", "console", "casewire", "case", case_id, "--domain", DOMAIN)

    def answered() -> bool:
        with contextlib.suppress(RuntimeError):
            return case_id in stack.compose(*ask)
        return False

    for service in ("streams-1", "streams-2"):
        stack.engine.docker("stop", stack.container(service), seconds=60)
        wait_until(answered, 120)
        with pytest.raises(RuntimeError, match=f"no role answers at {service}:9400"):
            stack.compose("exec", "-T", "ingress-1", "casewire", "doctor")
        stack.engine.docker("start", stack.container(service))
        stack.await_healthy()


def test_docker_stop_ends_each_process_in_order(stack: Stack) -> None:
    ended = {}
    for service in running_services(stack):
        container = stack.container(service)
        stack.engine.docker("stop", container, seconds=120)
        ended[service] = stack.engine.inspect(container)["State"]["ExitCode"]
    assert "refused while" not in stack.compose("logs", "--no-color", "ingress-1")
    assert ended == dict.fromkeys(ended, 0) | {"broker": TERMINATED}
    stack.compose("up", "-d", *stack.services, seconds=300)
    stack.await_healthy()
    assert stack.send(2, "--cases", "20", "--changes", "60").wait(300) == 0
