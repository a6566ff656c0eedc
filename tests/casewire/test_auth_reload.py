"""A running ingress follows its files: what it takes, and what it does not."""

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest
import requests
from prometheus_client import CollectorRegistry

from casewire.auth_reload import Reloader, read_policy
from casewire.config import Config, load_config
from ingress.access import Access
from schemas.settings import KafkaSettings
from tests.hq.ingress import Ingress, running_ingress
from tests.ingress.rig import WAIT_SECONDS, until
from tests.kafka_tools import create_topics
from tests.servers import KafkaServer

pytestmark = pytest.mark.anyio

HQ = """
[credentials.hq]
domains = ["demo"]
kind = "oauth2"
username = "id"
secret_file = "hq.secret"
"""
KEY = HQ.replace("oauth2", "api-key").replace(".hq]", ".key]").replace("hq.secret", "key.secret")


class Files:
    """A folder with a configuration, and the ingress' gate that follows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("hq.secret", "s3cret")
        self.write("key.secret", "k3y")
        self.write("credentials.toml", KEY)
        self.write("casewire.toml", 'data_dir = "."\n[domains.demo]\n' + HQ)
        self.registry = CollectorRegistry()
        self.access = Access(read_policy(self.load()), self.registry)
        self.reloader = Reloader(self.access, self.load(), self.load, 0.05)

    def load(self) -> Config:
        return load_config(self.folder / "casewire.toml", {})

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    @property
    def current(self) -> float | None:
        return self.registry.get_sample_value("casewire_ingress_config_current")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def test_what_is_broken_is_not_taken_and_what_is_mended_is(files: Files) -> None:
    before = files.access.policy
    toml = (files.folder / "casewire.toml").read_text()
    for name, text in (
        ("casewire.toml", "[domains"),
        ("casewire.toml", toml + "[ingres]\n"),
        ("credentials.toml", KEY + "kind = 1\n"),
        ("hq.secret", ""),
        ("hq.secret", "sha256:abc"),
        ("token.key", "no key"),
        ("credentials.toml", KEY.replace("key.secret", "none")),
    ):
        whole = (files.folder / name).read_text()
        files.write(name, text)
        await files.reloader.reload()
        assert (files.access.policy, files.current) == (before, 0), name
        files.write(name, whole)
        await files.reloader.reload()
        assert files.current == 1
        before = files.access.policy


async def test_a_failure_of_any_kind_leaves_what_there_is(files: Files) -> None:
    def failing() -> NoReturn:
        raise RuntimeError

    before = files.access.policy
    await Reloader(files.access, files.load(), failing).reload()
    assert (files.access.policy, files.current) == (before, 0)


async def test_a_file_that_is_gone_is_not_taken_for_a_change_of_mind(files: Files) -> None:
    before = files.access.policy
    for name in ("casewire.toml", "credentials.toml", "hq.secret", "key.secret"):
        (files.folder / name).rename(files.folder / "away")
        await files.reloader.reload()
        assert (files.access.policy, files.current) == (before, 0), name
        (files.folder / "away").rename(files.folder / name)


async def test_no_domain_becomes_open_to_everybody_while_it_runs(files: Files) -> None:
    files.write("credentials.toml", "")
    files.write("casewire.toml", 'data_dir = "."\n[domains.demo]\n')
    await files.reloader.reload()
    assert "demo" in files.access.policy.guards
    assert files.current == 0
    files.write("casewire.toml", 'data_dir = "."\n')
    await files.reloader.reload()
    assert not files.access.policy.knows("anything")
    files.write("casewire.toml", 'data_dir = "."\n[domains.other]\n')
    await files.reloader.reload()
    assert not files.access.policy.knows("demo")
    assert files.current == 1


async def test_keys_that_are_gone_at_the_start_are_taken_when_they_come(files: Files) -> None:
    file = files.folder / "keys"
    toml = (files.folder / "casewire.toml").read_text()
    files.write("casewire.toml", toml + '[ingress]\ntoken_key_file = "keys"\n')
    config = files.load()
    access = Access(read_policy(config), CollectorRegistry())
    assert "cannot be read" in access.policy.keys.missing
    reloader = Reloader(access, config, files.load, 0.05)
    running = asyncio.create_task(reloader.run())
    file.write_text("0f" * 32)
    await until(lambda: access.policy.keys.signing is not None)
    signing = access.policy.keys.signing
    file.unlink()
    await reloader.reload()
    assert access.policy.keys.signing == signing
    running.cancel()


async def test_a_change_is_seen_without_a_signal(files: Files) -> None:
    running = asyncio.create_task(files.reloader.run())
    files.write("new.secret", "n3w")
    more = KEY + KEY.replace(".key]", ".new]").replace("key.secret", "new.secret")
    files.write("credentials.toml", more)
    await until(lambda: "new" in files.access.policy.names)
    before = files.access.policy
    files.write("new.secret", "other")
    await until(lambda: files.access.policy is not before)
    files.write("new.secret", "")
    await until(lambda: files.current == 0)
    files.write("new.secret", "again")
    await until(lambda: files.current == 1)
    files.write("credentials.toml", KEY)
    (files.folder / "new.secret").unlink()
    await until(lambda: "new" not in files.access.policy.names)
    assert files.current == 1
    running.cancel()


@pytest.fixture
def ingress(kafka: KafkaServer, prefix: str, tmp_path: Path) -> Iterator[Ingress]:
    asyncio.run(create_topics(kafka.bootstrap_servers, prefix, ["captured", "bodies"]))
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix)
    (tmp_path / "key.secret").write_text("k3y")
    tables = "[domains.demo]\n" + KEY
    with running_ingress(Ingress(tmp_path, settings, tables)) as one:
        yield one


def answered(ingress: Ingress, secret: str) -> int:
    return requests.post(
        ingress.address(), data=b"x", headers={"Authorization": secret}, timeout=30
    ).status_code


def auth(ingress: Ingress, *arguments: str) -> str:
    config = str(ingress.folder / "casewire.toml")
    command = [sys.executable, "-m", "casewire", "--config", config, "auth", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.kafka
def test_a_secret_is_rotated_by_commands_without_a_restart_or_a_lost_request(
    ingress: Ingress,
) -> None:
    stopped = threading.Event()

    def keep_sending() -> set[int]:
        found = {answered(ingress, "k3y")}
        while not stopped.is_set():
            found.add(answered(ingress, "k3y"))
        return found

    def wait_for(status: int) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while answered(ingress, secret) != status:
            assert time.monotonic() < deadline, f"never {status}"

    with ThreadPoolExecutor(2) as threads:
        sending = [threads.submit(keep_sending) for _ in range(2)]
        try:
            told = auth(ingress, "rotate", "key")
            (secret,) = re.findall(r"\b[0-9a-f]{64}\b", told)
            (name,) = re.findall(r"Added (\S+) beside", told)
            assert ingress.process is not None
            ingress.process.send_signal(signal.SIGHUP)
            wait_for(200)
            auth(ingress, "revoke", name)
            wait_for(401)
        finally:
            stopped.set()
        assert [each.result() for each in sending] == [{200}, {200}]
