"""One machine whose disk runs full under load: what was answered 200 is there when it has room."""

import asyncio
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import orjson
import pytest

from casewire.config import Config, load_config
from casewire.health import running
from casewire.progress import await_caught_up
from casewire.reading import read_topic
from casewire.sink_config import sources
from casewire.sums import count_sums
from schemas.times import now
from streams.records import captured_id
from tests.casewire.test_up import Up, environment
from tests.end_to_end.tables import held_cases, sqlite_query

pytestmark = [pytest.mark.anyio, pytest.mark.nightly]

SMALL, LARGE = "size=96m", "size=600m"
SENDERS = 8


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MB; whoever runs this may mount one (root)."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def give_room(disk: Path) -> None:
    subprocess.run(["mount", "-o", f"remount,{LARGE}", str(disk)], check=True)


class Sender:
    """Sends cases and notes what became of them: receipts by case, and other answers."""

    def __init__(self, config: Config, session: aiohttp.ClientSession) -> None:
        self._url = f"http://{config.ingress.bind}/api/v1/in/demo"
        self._session = session
        self.receipts: dict[str, str] = {}

    async def send(self) -> tuple[int, str]:
        """Send a new case that does not compress; return status and text."""
        case_id = uuid.uuid4().hex
        body = {
            "domain": "demo", "case_id": case_id, "user_id": "u", "closed": False,
            "xform_ids": [uuid.uuid4().hex], "date_closed": None, "date_modified": now(),
            "server_date_modified": now(), "indices": {}, "attachments": {},
            "properties": {"case_type": "patient", "case_name": "x", "owner_id": "o",
                           "date_opened": now(), "note": os.urandom(16_000).hex()},
        }  # fmt: skip
        async with self._session.post(self._url, json=body) as answer:
            text = await answer.text()
            if answer.status == 200:
                self.receipts[case_id] = orjson.loads(text)["id"]
            return answer.status, text

    async def until_refused(self) -> str:
        """Send until something is not taken; return why."""
        while True:
            status, text = await self.send()
            if status != 200:
                assert status == 503, text
                return text


async def test_what_was_answered_200_before_a_disk_was_full_goes_on_when_it_has_room(
    disk: Path,
) -> None:
    env = environment(disk)
    config = load_config(None, env)
    up = await Up.start(env)
    (ingress,) = [each.pid for each in running(config.run_dir) if each.role == "ingress"]
    try:
        async with aiohttp.ClientSession() as session:
            sender = Sender(config, session)
            async with asyncio.timeout(180):
                reasons = await asyncio.gather(*(sender.until_refused() for _ in range(SENDERS)))
                assert all(text.startswith("Not stored, send it again later") for text in reasons)
                while not any("broker ended with status" in line for line in up.said):
                    await up.hear()
                assert (await sender.send())[0] == 503
                give_room(disk)
                # First the spool takes them again, then the broker does.
                while "kafka" not in (await sender.send())[1]:  # noqa: ASYNC110 - HQ asks too
                    await asyncio.sleep(0.5)
        before = [each.pid for each in running(config.run_dir) if each.role == "ingress"]
        assert before == [ingress], "the ingress needs no restart"
        async with asyncio.timeout(180):
            await await_caught_up(config.cluster, sources(config.sinks), lambda group, left: None)
        captured = {captured_id(each) async for each in read_topic(config.cluster, "captured")}
        assert set(sender.receipts.values()) - captured == set()
        sums = await count_sums(config.cluster, sources(config.sinks))
        assert sums.match
        stored = held_cases(sqlite_query(config.data_dir / "sqlite" / "demo.db"))
        assert sender.receipts.keys() - stored.keys() == set()
    finally:
        assert await up.end(signal.SIGINT) == 0
