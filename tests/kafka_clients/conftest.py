from collections.abc import Iterator

import pytest

from tests.secure_broker import SecureBroker, secure_broker

#: Users without any right, but what a test gives them.
USERS = ("ingress", "streams", "sink-files", "alerts", "operator", "administrator")


@pytest.fixture(scope="package")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """A broker that asks who comes."""
    with secure_broker(tmp_path_factory.mktemp("secure"), USERS) as broker:
        yield broker
