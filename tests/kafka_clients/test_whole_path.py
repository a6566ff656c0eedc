"""From the POST to the row where each role has a user of its own, with no right too many."""

import os
import shlex
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import anyio
import msgspec
import pytest

from casewire.addresses import Address
from casewire.broker import LIBS
from casewire.config import load_config
from casewire.doctor.permissions import permissions
from casewire.health import Running, announce
from casewire.topics import create_topics, require_topics
from ingress.producer import connect
from kafka_clients.rights import Right, acl_commands, rights
from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from sinks.sql_settings import SqlSettings
from tests.end_to_end.system import System, running_system
from tests.end_to_end.tables import held_cases, sqlite_query
from tests.end_to_end.test_samples import post
from tests.kafka_clients.conftest import USERS
from tests.schemas.captures import fixture
from tests.secure_broker import PASSWORD, SecureBroker
from tests.servers import KafkaServer

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

SINKS = {"files": {"type": "sql"}}
SOURCES = {"files": SqlSettings().sources}
ROLES = {"ingress": "ingress", "streams": "streams", "sink files": "sink-files",
         "alerts run": "alerts"}  # fmt: skip


def as_user(secure: SecureBroker, user: str, prefix: str) -> KafkaSettings:
    return msgspec.structs.replace(secure.by_sasl(user), topic_prefix=prefix, partitions=2)


def login(secure: SecureBroker, folder: Path) -> Mapping[str, str]:
    """Return the environment that logs in as the administrator, with the password in a file."""
    password = folder / "password"
    password.write_text(PASSWORD + "\n")
    return {
        "CASEWIRE_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "CASEWIRE_KAFKA__SASL_USERNAME": "administrator",
        "CASEWIRE_KAFKA__SASL_PASSWORD_FILE": str(password),
        "CASEWIRE_KAFKA__CA_FILE": str(secure.certificate.authority),
    }


@pytest.fixture
async def system(secure: SecureBroker, prefix: str, tmp_path: Path) -> AsyncIterator[System]:
    """All roles, each as a user with the rights of the table of rights."""
    kafka = as_user(secure, "admin", prefix)
    wanted = rights(kafka, SOURCES)
    assert set(wanted) == set(USERS)
    for user in USERS:
        await secure.give(user, wanted[user])
    users = {role: {"CASEWIRE_KAFKA__SASL_USERNAME": user} for role, user in ROLES.items()}
    system = System(tmp_path / "system", kafka, SINKS, env=login(secure, tmp_path), role_env=users)
    async with running_system(system):
        system.start("alerts run")
        await system.ready(["alerts run"])
        yield system


async def test_what_is_posted_becomes_rows_and_nobody_is_refused_anything(
    secure: SecureBroker, system: System
) -> None:
    address = system.address("demo")
    sample = fixture("case_json_current_open.json")
    headers = [(key, value.decode()) for key, value in sample.headers]
    status, receipt = await post(address, sample.body, headers)
    assert (status, receipt["stored"]) == (200, "kafka")
    assert (await post(address, b"<broken", headers))[0] == 200
    await system.caught_up()
    (case,) = held_cases(sqlite_query(system.folder / "data" / "sqlite" / "demo.db")).values()
    assert case.properties
    operator = {**system.env, "CASEWIRE_KAFKA__SASL_USERNAME": "operator"}
    for command in (
        "topics check",
        "tail cases --since-beginning -n 1",
        "dead-letters list",
        "dead-letters replay --cause malformed_json --yes",
        "replay --domain demo",
    ):
        await anyio.run_process(system.command(*command.split()), env=operator)
    await system.caught_up()
    assert secure.refusals(system.kafka.topic_prefix) == []
    logs = "".join(system.log(role).read_text() for role in ROLES)
    assert PASSWORD not in logs


LACKING: Mapping[str, tuple[str, Callable[[Right], bool], str]] = {
    "group": ("streams", lambda right: right.resource == "group", "Read of group"),
    "source": ("streams", lambda right: right.name.endswith("captured"), "Read of topic"),
    "state": (
        "streams",
        lambda right: right.name.endswith("case-state") and right.operation == "Write",
        "Write of topic",
    ),
    "ledger": ("sink-files", lambda right: right.name.endswith("deliveries"), "Write of topic"),
    "alerts": ("alerts", lambda right: right.name.endswith("*"), "Describe of topic"),
}


@pytest.mark.parametrize("case", LACKING)
async def test_a_right_that_is_missing_is_named_before_anything_starts(
    secure: SecureBroker, prefix: str, case: str
) -> None:
    user, is_missing, said = LACKING[case]
    kafka = as_user(secure, user, prefix)
    await create_topics(as_user(secure, "admin", prefix))
    wanted = rights(kafka, SOURCES)[user]
    missing = [right for right in wanted if is_missing(right)]
    await secure.give(user, [right for right in wanted if right not in missing])
    with pytest.raises(UnavailableError) as raised:
        await require_topics(kafka, wanted)
    assert f"does not allow the user {user} {said} {prefix.rstrip('.')}" in str(raised.value)
    assert str(raised.value).endswith("casewire topics acls prints")
    await secure.give(user, missing)
    await require_topics(kafka, wanted)


async def test_an_ingress_without_its_right_says_so(secure: SecureBroker, prefix: str) -> None:
    kafka = as_user(secure, "ingress", prefix)
    await create_topics(as_user(secure, "admin", prefix))
    await secure.give("ingress", rights(kafka, {})["ingress"][:1])
    with pytest.raises(UnavailableError, match=f"user ingress Write of topic {prefix}bodies; give"):
        await connect(kafka)


async def test_a_broker_without_an_authorizer_allows_everything(
    kafka: KafkaServer, prefix: str
) -> None:
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix, partitions=1
    )
    await create_topics(settings)
    for wanted in rights(settings, SOURCES).values():
        await require_topics(settings, wanted)


@pytest.mark.nightly
async def test_the_printed_lines_give_a_role_its_rights(
    secure: SecureBroker, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "admin.properties").touch()
    anonymous = msgspec.structs.replace(
        as_user(secure, "admin", prefix), bootstrap_servers=secure.server.bootstrap_servers
    )
    kafka = as_user(secure, "sink-files", prefix)
    await create_topics(as_user(secure, "admin", prefix))
    wanted = rights(kafka, SOURCES)["sink-files"]
    for line in acl_commands(anonymous, wanted, "sink-files"):
        _, *arguments = shlex.split(line)
        tool = ["java", "-cp", f"{LIBS}/*", "org.apache.kafka.tools.AclCommand", *arguments]
        await anyio.run_process(tool, cwd=tmp_path)
    await require_topics(kafka, wanted)


def test_the_printed_lines_are_what_kafka_acls_takes() -> None:
    kafka = KafkaSettings(bootstrap_servers="kafka:9093", topic_prefix="x.")
    wanted = [
        Right("topic", "x.*", "Describe"), Right("group", "x-streams", "Read"),
        Right("topic", "x.captured", "Read"),
    ]  # fmt: skip
    begin = (
        "kafka-acls --bootstrap-server kafka:9093 --command-config admin.properties "
        "--add --allow-principal User:me --operation "
    )
    assert acl_commands(kafka, wanted, "me") == [
        f"{begin}Describe --resource-pattern-type prefixed --topic x.",
        f"{begin}Read --group x-streams --topic x.captured",
    ]


async def test_the_doctor_judges_the_roles_that_run_where_it_is(
    secure: SecureBroker, prefix: str, tmp_path: Path
) -> None:
    kafka = as_user(secure, "sink-files", prefix)
    env = {
        **login(secure, tmp_path),
        "KAFKA_BOOTSTRAP_SERVERS": secure.sasl,
        "CASEWIRE_KAFKA__SASL_USERNAME": "sink-files",
        "CASEWIRE_KAFKA__TOPIC_PREFIX": prefix,
        "CASEWIRE_DATA_DIR": str(tmp_path / "var"),
        "CASEWIRE_SINKS__FILES__TYPE": "sql",
    }
    config = load_config(None, env)
    await create_topics(as_user(secure, "admin", prefix))
    wanted = rights(kafka, SOURCES)["sink-files"]
    await secure.give("sink-files", [right for right in wanted if right.name[-5:] != "files"])
    of_all = await permissions(config)
    assert [each.partition("topics acls ")[2].split()[0] for each in of_all] == [
        "alerts",
        "ingress",
        "sink-files",
        "streams",
    ]
    announce(config.run_dir, Running.of("sink-files", os.getpid(), Address("127.0.0.1", 1)))
    (problem,) = await permissions(config)
    assert problem.startswith("the user sink-files lacks Read of group ")
    await secure.give("sink-files", wanted)
    assert await permissions(config) == []
