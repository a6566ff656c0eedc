import contextlib
import time
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from casewire.addresses import Address
from casewire.cli import run
from casewire.config import load_config
from casewire.doctor.cluster import replica_problems
from casewire.doctor.command import examine
from casewire.doctor.machine import (
    LEAST_FREE_BYTES,
    Filling,
    disk_problems,
    file_system,
    file_system_problems,
    filling,
    filling_problems,
    open_files,
    secrets,
    unit_problems,
)
from casewire.doctor.processes import expected_roles
from casewire.doctor.roles import addresses, ingress, ingress_problems, roles
from casewire.doctor.versions import (
    broker_problems,
    lock_problems,
    of_the_workers,
    python_problems,
    role_problems,
)
from casewire.health import Health, Running, serving_health
from casewire.topics import create_topics
from kafka_clients.login import CLIENT_ID
from schemas.settings import KafkaSettings
from schemas.times import from_microseconds
from tests.servers import KafkaServer, free_port

pytestmark = pytest.mark.anyio

GIBIBYTE = 1024**3
UNITS = Path(__file__).parents[2] / "docs" / "deploy"


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
    assert "no Kafka broker answers" in by_area["broker"][0]
    assert "topics" not in by_area, "one problem is one line"
    assert [text.partition("casewire up, or ")[2] for text in by_area["roles"]] == [
        "casewire alerts run",
        "casewire ingress",
        "casewire sink db",
        "casewire streams",
    ]
    assert "start casewire up" in by_area["ingress"][0]
    assert "correct [sinks.db]" in by_area["sinks"][0]
    assert "data directory" not in by_area


def test_a_wrong_configuration_is_a_line_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "casewire.toml"
    file.write_text("[ingress]\nbnd = 'x'\n[kafka]\npartitions = 0\n")
    assert run(["--config", str(file), "doctor", "--json"], {}) == 1
    problems = orjson.loads(capsys.readouterr().out)
    assert [each["area"] for each in problems] == ["configuration", "configuration"]


async def test_a_worker_on_any_machine_that_is_of_another_version_is_told(
    kafka: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    env = environment(tmp_path, kafka.bootstrap_servers, prefix)
    config = load_config(None, env)
    await create_topics(config.cluster)
    for client_id, told in (("casewire-0.0.1", ["streams"]), (CLIENT_ID, [])):
        member = AIOKafkaConsumer(
            config.cluster.topic("captured"),
            bootstrap_servers=kafka.bootstrap_servers,
            group_id=config.cluster.group("streams"),
            client_id=client_id,
        )
        await member.start()
        found = await of_the_workers(config)
        await member.stop()
        assert [each.partition(" on 127.0.0.1 is of another version")[0] for each in found] == told


async def test_topics_and_clock_are_judged_by_what_is_on_the_broker(
    kafka: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    config = load_config(None, environment(tmp_path, kafka.bootstrap_servers, prefix))
    await create_topics(config.cluster)
    areas = {problem.area for problem in await examine(config)}
    assert areas - {"versions"} == {"roles", "ingress"}
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    came = [("ce_time", from_microseconds(int((time.time() + 3600) * 1e6)).encode())]
    await producer.send_and_wait(config.cluster.topic("captured"), b"x", headers=came)
    await producer.stop()
    (problem,) = [each for each in await examine(config) if each.area == "clock"]
    assert "NTP" in str(problem)


async def test_secrets_that_everybody_can_read_and_a_taken_address_are_problems(
    tmp_path: Path,
) -> None:
    config = load_config(None, environment(tmp_path, "127.0.0.1:9"))
    config.data_dir.mkdir()
    config.token_key_file.write_text("x")
    config.token_key_file.chmod(0o640)
    assert await secrets(config) == []
    config.token_key_file.chmod(0o644)
    assert f"chmod o-rwx {config.token_key_file}" in (await secrets(config))[0]
    assert await addresses(config) == []
    with Address.parse(config.ingress.bind).listening():
        (problem,) = await addresses(config)
    assert "CASEWIRE_INGRESS_BIND" in problem
    binds = {name: f"127.0.0.1:{free_port()}" for name in ("BROKER", "CONSOLE", "INGRESS")}
    env = {f"CASEWIRE_{name}_BIND": bind for name, bind in binds.items()}
    alone = load_config(None, {**env, "CASEWIRE_DATA_DIR": str(tmp_path / "alone")})
    with Address.parse(binds["CONSOLE"]).listening():
        (problem,) = await addresses(alone)
    assert "CASEWIRE_CONSOLE_BIND" in problem


async def test_roles_are_looked_for_where_the_configuration_says(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    env = environment(tmp_path, "127.0.0.1:9")
    env |= {"CASEWIRE_SINKS__DB__TYPE": "sql", "CASEWIRE_SINKS__DB__URL": "sqlite:///db"}
    env["CASEWIRE_CONSOLE__USERS_FILE"] = str(tmp_path / "users")
    async with contextlib.AsyncExitStack() as stack:
        places = []
        recovering = Health(lambda: None, lambda: "it recovers")
        well = Health(lambda: None, lambda: None)
        for role, health in (("ingress", well), ("streams", recovering), ("sink-db", well)):
            bind = f"127.0.0.1:{free_port()}"
            elsewhere = tmp_path / role
            serving = serving_health(health, role=role, bind=bind, run_dir=elsewhere)
            places.append(str(await stack.enter_async_context(serving)))
        env["CASEWIRE_PROCESSES"] = ",".join(places)
        config = load_config(None, env)
        assert await roles(config) == [
            "console is at none of the addresses in processes; start it, and name it there",
            f"streams at {places[1]} is not ready: it recovers; see its log",
        ]
        assert await ingress(config) == []
        env["CASEWIRE_PROCESSES"] = f"{places[0]},{nobody},no-such-host.invalid:9400"
        found = await roles(load_config(None, env))
    assert [each.partition(";")[0] for each in found] == [
        f"no role answers at {nobody}",
        "no role answers at no-such-host.invalid:9400",
    ]


def test_the_console_is_looked_for_if_it_is_configured(tmp_path: Path) -> None:
    env = environment(tmp_path, "127.0.0.1:9")
    assert "console" not in expected_roles(load_config(None, env))
    users = {"CASEWIRE_CONSOLE__USERS_FILE": str(tmp_path / "users")}
    assert "console" in expected_roles(load_config(None, env | users))
    del env["KAFKA_BOOTSTRAP_SERVERS"]
    assert "console" in expected_roles(load_config(None, env))


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


def test_a_disk_is_judged_by_what_comes_and_what_retention_frees() -> None:
    day = 86_400
    # 10 GiB for a million events, and half of them came in the last day.
    found = Filling(10 * GIBIBYTE, 1_000_000, 500_000, day)
    assert found.bytes_a_day == 5 * GIBIBYTE
    (problem,) = filling_problems(Path("/var"), 50 * GIBIBYTE, found)
    assert "at the present rate of 5.0 GiB a day /var is full in 10 days" in problem
    assert "150 GiB in all" in problem
    assert not [*filling_problems(Path("/var"), 100 * GIBIBYTE, found)]
    # What is kept already is nearly all that will be.
    long_there = Filling(145 * GIBIBYTE, 14_500_000, 500_000, day)
    assert not [*filling_problems(Path("/var"), 10 * GIBIBYTE, long_there)]
    assert Filling(0, 0, 0, day).bytes_a_day == 0


async def test_how_a_disk_fills_is_measured_on_the_broker_and_its_files(
    kafka: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    env = environment(tmp_path, kafka.bootstrap_servers, prefix)
    config = load_config(None, env)
    segments = config.data_dir / "kafka" / "log" / "casewire.captured-0"
    segments.mkdir(parents=True)
    (segments / "00000000000000000000.log").write_bytes(b"x" * 40_960)
    await create_topics(config.cluster)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        for _ in range(3):
            await producer.send_and_wait(config.cluster.topic("captured"), b"x")
    found = await filling(config)
    assert (found.events, found.latest, found.seconds) == (3, 3, 3600)
    assert found.held_bytes >= 40_960
    assert found.bytes_a_day == found.held_bytes * 24


def test_the_file_system_of_a_folder_is_that_of_the_nearest_mount() -> None:
    mounts = (
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:25 / /var/my\\040data rw shared:9 - tmpfs tmpfs rw\n"
        "31 22 0:26 / /srv rw - nfs4 server:/x rw\n"
    )
    assert file_system(Path("/var/lib"), mounts) == "ext4"
    assert file_system(Path("/var/my data/kafka"), mounts) == "tmpfs"
    assert file_system(Path("/x"), "") == ""
    assert not [*file_system_problems(Path("/var"), "ext4")]
    assert "all is lost" in "".join(file_system_problems(Path("/var"), "tmpfs"))
    assert "network" in "".join(file_system_problems(Path("/var"), "nfs4"))


@pytest.mark.parametrize(
    ("unit", "folder", "problem"),
    [
        ("ProtectHome=true", "/home/x/var", "ProtectHome= hides"),
        ("PrivateTmp=yes", "/var/tmp/x", "PrivateTmp= hides"),  # noqa: S108
        ("ProtectSystem=strict\nReadWritePaths=/srv", "/data", "add ReadWritePaths=/data"),
        ("ProtectSystem=strict\nReadWritePaths=/srv -/data", "/data/casewire", ""),
        ("ProtectSystem=strict\nStateDirectory=casewire", "/var/lib/casewire", ""),
        ("ExecStart=/x/casewire up\nTimeoutStopSec=200", "/data", "KillMode=mixed"),
        ("ExecStart=/x/casewire up\nKillMode=mixed", "/data", "TimeoutStopSec=150"),
        ("ExecStart=/x/casewire streams\n", "/data", ""),
    ],
)
def test_a_unit_is_judged_by_what_it_keeps_a_role_from(
    unit: str, folder: str, problem: str
) -> None:
    found = [*unit_problems(unit, Path(folder))]
    assert len(found) == bool(problem)
    assert problem in "".join(found)


def test_nothing_is_wrong_with_the_units_that_the_documentation_has() -> None:
    for file in UNITS.glob("*.service"):
        assert not [*unit_problems(file.read_text(), Path("/var/lib/casewire"))], file.name


def test_how_many_files_a_process_may_open_is_read_from_its_limits() -> None:
    limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024  524288  files\n"
    assert open_files(limits) == 1024
    assert open_files(limits.replace("1024", "unlimited")) is None


def test_versions_are_compared_with_what_is_wanted() -> None:
    assert not [*python_problems(">=3.11,<3.14", (3, 13))]
    assert "Python 3.14" in "".join(python_problems(">=3.11,<3.14", (3, 14)))
    assert "Python 3.10" in "".join(python_problems(">=3.11,<3.14", (3, 10)))
    lock = "aiohttp==3.14.5 \\\n    --hash=x\nLow_er==1 ; python_version < '3.12'\nlow-er==2\n"
    assert not [*lock_problems(lock, {"aiohttp": "3.14.5", "low-er": "2", "other": "9"})]
    (problem,) = lock_problems(lock, {"aiohttp": "3.15.0"})
    assert "aiohttp is 3.15.0, and requirements.lock has 3.14.5" in problem
    old = Running("streams", 7, "127.0.0.1:9400", "1", version="0.1.0")
    assert not [*role_problems([old], "0.1.0")]
    assert "streams (process 7) runs Casewire 0.1.0" in "".join(role_problems([old], "0.2.0"))
    new = [(1, 4, 17), (3, 0, 13)]
    assert not [*broker_problems({1: new, 2: [*reversed(new)]})]
    assert "older than Kafka 2.3" in "".join(broker_problems({1: [(1, 0, 10)]}))
    assert "1, 2 are of different versions" in "".join(broker_problems({1: new, 2: [(1, 4, 18)]}))


def test_partitions_without_a_broker_or_with_too_few_are_told() -> None:
    kafka = KafkaSettings(replication=2)

    def topic(name: str, leader: int, isr: list[int]) -> dict[str, object]:
        part = {"partition": 0, "leader": leader, "replicas": [1, 2], "isr": isr}
        return {"topic": name, "partitions": [part]}

    well = topic("casewire.captured", 1, [1, 2])
    assert not [*replica_problems(kafka, 2, [well, topic("other", -1, [])])]
    assert "replication is 2" in "".join(replica_problems(kafka, 1, [well]))
    thin = topic("casewire.cases", 1, [1])
    assert "1 partitions are on fewer" in "".join(replica_problems(kafka, 2, [well, thin]))
    dead = topic("casewire.forms", -1, [])
    assert "such as casewire.forms/0" in "".join(replica_problems(kafka, 2, [thin, dead]))
