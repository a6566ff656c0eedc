"""Every way in which HQ proves who it is, by its own libraries, against the ingress process."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from casewire.hq import Request
from schemas.settings import KafkaSettings
from tests.hq.captured import assert_stored, event_id
from tests.hq.client import Repeater
from tests.hq.ingress import Ingress, running_ingress
from tests.hq.logins import Anyone, ApiKey, Basic, Login

pytestmark = pytest.mark.kafka

FORM = Path(__file__).parent.parent / "fixtures" / "hq" / "form_xml_data_types.xml"
PAYLOAD = Request(
    kind="form_xml",
    body=FORM.read_bytes(),
    content_type="text/xml",
    headers=(("received-on", "2026-11-22T10:00:00.000000Z"),),
    query="app_id=None",
)
SECRET = "pässwörd-of-hq"
KEY = "ApiKey hq@example.org:0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Way:
    """A project space, the keys of its credential, and logins that are right and wrong.

    Both take the origin of the ingress.
    """

    credential: str
    right: Callable[[str], Login]
    wrong: Callable[[str], Login]


WAYS: Mapping[str, Way] = {
    "basic": Way(
        'kind = "basic"\nusername = "hqé"',
        lambda _: Basic("hqé", SECRET),
        lambda _: Basic("hqé", "wrong"),
    ),
    "api-key": Way('kind = "api-key"', lambda _: ApiKey(KEY), lambda _: ApiKey("ApiKey wrong")),
    "api-key-header": Way(
        'kind = "api-key"\nheader = "X-Token"',
        lambda _: ApiKey(KEY, "X-Token"),
        lambda _: ApiKey(KEY),
    ),
}


@pytest.fixture(scope="module")
def ingress(topics: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    """An ingress with a project space for each way, called like it, and `anyone`."""
    folder = tmp_path_factory.mktemp("logins")
    tables = "[domains.anyone]\n"
    for name, way in WAYS.items():
        secret = folder / f"{name}.secret"
        secret.write_text(KEY if name.startswith("api-key") else SECRET, encoding="utf-8")
        secret.chmod(0o600)
        tables += (
            f"[domains.{name}]\n[credentials.{name}]\n{way.credential}\n"
            f'domains = ["{name}"]\nsecret_file = "{secret}"\n'
        )
    with running_ingress(Ingress(folder, topics, tables)) as one:
        yield one


@pytest.fixture(params=WAYS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_a_payload_with_the_right_login_is_stored_at_the_first_send(
    ingress: Ingress, name: str
) -> None:
    repeater = Repeater(url=ingress.address(name), login=WAYS[name].right(ingress.origin))
    assert repeater.test_connection().status == 200
    [record] = repeater.forward([PAYLOAD])
    assert (record.state, len(record.attempts)) == ("Succeeded", 1)
    assert_stored(ingress.kafka, {event_id(record.receipt): PAYLOAD.body})


def test_a_wrong_login_is_told_so_by_the_test_and_rejected(ingress: Ingress, name: str) -> None:
    for login in (WAYS[name].wrong(ingress.origin), Anyone()):
        repeater = Repeater(url=ingress.address(name), login=login)
        assert repeater.test_connection().status == 401
        [record] = repeater.forward([PAYLOAD])
        assert (record.state, len(record.attempts)) == ("Rejected", 1)
        assert SECRET not in record.receipt
        assert KEY not in record.receipt


def test_a_login_that_nobody_asks_for_does_no_harm(ingress: Ingress) -> None:
    for login in (Anyone(), Basic("any", "one"), ApiKey("any", "X-Any")):
        repeater = Repeater(url=ingress.address("anyone"), login=login)
        assert repeater.test_connection().status == 200
        [record] = repeater.forward([PAYLOAD])
        assert record.state == "Succeeded"


def test_a_project_space_that_is_not_known_yet_is_tried_again_and_never_rejected(
    ingress: Ingress,
) -> None:
    repeater = Repeater(url=ingress.address("not-yet"), scale=0)
    [record] = repeater.forward([PAYLOAD])
    assert record.state == "Cancelled"
    assert [attempt.status for attempt in record.attempts] == [503] * 6
