"""The same tests pass on containers as on other servers (tests/test_provided.py)."""

import pytest

from casewire.broker import KAFKA
from tests.containers.engine import Engine, build_image, build_stand_in
from tests.test_provided import run_chosen

pytestmark = pytest.mark.nightly


def test_the_same_tests_pass_on_containers(engine: Engine) -> None:
    kafka = build_image(engine, "casewire-kafka:local", KAFKA)
    postgres = build_stand_in(engine, "postgres")
    images = {"TEST_KAFKA_IMAGE": kafka, "TEST_POSTGRES_IMAGE": postgres}
    said = run_chosen("docker", DOCKER_HOST=engine.address, **images)
    assert f"Kafka: a container of {kafka}" in said
    assert f"PostgreSQL: a container of {postgres}" in said
    assert engine.docker("ps", "--all", "--quiet", "--filter", "label=org.testcontainers") == ""
