"""From the POST to the row through a broker that asks who comes."""

from pathlib import Path

import msgspec
import pytest

from tests.end_to_end.system import System, running_system
from tests.end_to_end.tables import held_cases, sqlite_query
from tests.end_to_end.test_samples import post
from tests.schemas.captures import fixture
from tests.secure_broker import PASSWORD, SecureBroker

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


def login(secure: SecureBroker, folder: Path) -> dict[str, str]:
    """Return the environment that logs in as the administrator, with the password in a file."""
    password = folder / "password"
    password.write_text(PASSWORD + "\n")
    return {
        "CASEWIRE_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "CASEWIRE_KAFKA__SASL_USERNAME": "admin",
        "CASEWIRE_KAFKA__SASL_PASSWORD_FILE": str(password),
        "CASEWIRE_KAFKA__CA_FILE": str(secure.certificate.authority),
    }


async def test_what_is_posted_becomes_rows_through_a_broker_that_asks_who_comes(
    secure: SecureBroker, prefix: str, tmp_path: Path
) -> None:
    kafka = msgspec.structs.replace(secure.by_sasl(), topic_prefix=prefix, partitions=2)
    sinks = {"files": {"type": "sql"}}
    system = System(tmp_path / "system", kafka, sinks, env=login(secure, tmp_path))
    async with running_system(system):
        sample = fixture("case_json_current_open.json")
        headers = [(key, value.decode()) for key, value in sample.headers]
        status, receipt = await post(system.address("demo"), sample.body, headers)
        assert (status, receipt["stored"]) == (200, "kafka")
        await system.caught_up()
        (case,) = held_cases(sqlite_query(system.folder / "data" / "sqlite" / "demo.db")).values()
        assert case.properties
    logs = "".join(system.log(role).read_text() for role in system.roles)
    assert PASSWORD not in logs
