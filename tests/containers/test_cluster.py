"""docker/compose.cluster.yaml: one of three brokers dies while a project comes in."""

from collections.abc import Iterator

import pytest
import requests

from tests.containers.engine import Engine
from tests.containers.stack import Stack, await_right_rows, running_stack, wait_until

pytestmark = pytest.mark.nightly


@pytest.fixture
def stack(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("cluster") / "casewire"
    with running_stack(engine, folder, ["compose.yaml", "compose.cluster.yaml"]) as running:
        yield running


def captured(stack: Stack) -> float:
    """Return how many events both ingresses say that they have captured."""
    total = 0.0
    for service in ("ingress-1", "ingress-2"):
        address = f"http://{stack.address(service)}:9400/metrics"
        for line in requests.get(address, timeout=10).text.splitlines():
            if line.startswith("casewire_ingress_events_total{"):
                total += float(line.rpartition(" ")[2])
    return total


def test_a_broker_dies_while_events_come_and_nothing_is_lost(stack: Stack) -> None:
    check = ("exec", "-T", "streams-1", "casewire", "topics", "check")
    assert "as they should be" in stack.compose(*check)
    sending = stack.send(3, "--cases", "60", "--changes", "400")
    wait_until(lambda: captured(stack) >= 200, 120)
    assert sending.poll() is None
    stack.engine.docker("kill", stack.container("broker"))
    assert sending.wait(400) == 0
    await_right_rows(stack)
