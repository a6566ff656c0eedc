import time
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from casewire.cli import run
from casewire.config import load_config
from casewire.doctor import LEAST_FREE_BYTES, disk_problems, examine, ingress_problems
from casewire.topics import create_topics
from schemas.times import from_microseconds
from tests.servers import KafkaServer, free_port

pytestmark = pytest.mark.anyio


def environment(tmp_path: Path, servers: str, prefix: str = "casewire.") -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "CASEWIRE_DATA_DIR": str(tmp_path / "var"),
        "CASEWIRE_INGRESS_BIND": f"127.0.0.1:{free_port()}",
        "CASEWIRE_KAFKA__TOPIC_PREFIX": prefix,
        "CASEWIRE_KAFKA__PARTITIONS": "1",
    }


def test_every_area_is_looked_at_even_if_one_before_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = environment(tmp_path, f"127.0.0.1:{free_port()}")
    env |= {
        "CASEWIRE_SINKS__DB__TYPE": "sql",
        "CASEWIRE_SINKS__DB__URL": f"postgresql://127.0.0.1:{free_port()}/x",
        "CASEWIRE_ALERTS__URLS": "json://localhost",
    }
    assert run(["doctor", "--json"], env) == 1
    problems = orjson.loads(capsys.readouterr().out)
    by_area: dict[str, list[str]] = {}
    for problem in problems:
        by_area.setdefault(problem["area"], []).append(problem["text"])
    assert "no Kafka broker answers" in by_area["topics"][0]
    assert [text.partition("casewire up, or ")[2] for text in by_area["roles"]] == [
        "casewire alerts run",
        "casewire ingress",
        "casewire sink db",
        "casewire streams",
    ]
    assert "start casewire up" in by_area["ingress"][0]
    assert "correct [sinks.db]" in by_area["sinks"][0]
    assert "data directory" not in by_area


async def test_topics_and_clock_are_judged_by_what_is_on_the_broker(
    kafka: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    config = load_config(None, environment(tmp_path, kafka.bootstrap_servers, prefix))
    await create_topics(config.cluster)
    areas = {problem.area for problem in await examine(config)}
    assert areas == {"roles", "ingress"}
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    came = [("ce_time", from_microseconds(int((time.time() + 3600) * 1e6)).encode())]
    await producer.send_and_wait(config.cluster.topic("captured"), b"x", headers=came)
    await producer.stop()
    (problem,) = [each for each in await examine(config) if each.area == "clock"]
    assert "NTP" in str(problem)


def test_a_data_directory_of_another_format_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "format").write_text("9")
    assert run(["doctor"], environment(tmp_path, f"127.0.0.1:{free_port()}")) == 1
    assert "data directory: " in capsys.readouterr().out


def test_little_space_and_a_stranger_at_the_address_are_problems() -> None:
    assert disk_problems(Path("/var"), LEAST_FREE_BYTES) == []
    assert "only 5 MiB are free at /var" in disk_problems(Path("/var"), 5 * 1024**2)[0]
    assert ingress_problems("http://x", 401) == []
    assert "answers 404" in ingress_problems("http://x", 404)[0]
