"""Whether the versions fit together: of Python, of dependencies, of running roles, of brokers."""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Final

from aiokafka.protocol.admin import ApiVersionRequest

from casewire.broker import ROOT
from casewire.config import Config
from casewire.health import Running, running
from casewire.progress import Member, members_of
from casewire.topics import admin
from kafka_clients.login import CLIENT_ID

#: Kafka's numbers of a request and its version that came with Kafka 2.3 (Fetch, KIP-392).
_FETCH: Final = 1
_LEAST_FETCH: Final = 11
_OWN: Final = metadata.version("casewire")


async def this_installation(config: Config) -> Sequence[str]:
    """Look at Python, the dependencies, and what runs here since before an upgrade."""
    own = metadata.distribution("casewire")
    lock = ROOT / "requirements.lock"
    return [
        *python_problems(own.metadata["Requires-Python"], sys.version_info[:2]),
        *(lock_problems(lock.read_text(encoding="utf-8"), _installed()) if lock.exists() else ()),
        *role_problems(running(config.run_dir), _OWN),
    ]


def python_problems(required: str, version: tuple[int, ...]) -> Iterator[str]:
    """Judge Python's version by `>=3.11,<3.14`."""
    for relation, major, minor in re.findall(r"(>=|<)\s*(\d+)\.(\d+)", required):
        bound = (int(major), int(minor))
        if (version < bound) if relation == ">=" else (version >= bound):
            yield (
                f"this is Python {'.'.join(map(str, version))}, and Casewire needs {required}; "
                "make its environment anew with another one"
            )


def lock_problems(lock: str, installed: Mapping[str, str]) -> Iterator[str]:
    """Compare the packages that are there with requirements.lock."""
    locked: dict[str, set[str]] = defaultdict(set)
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.MULTILINE):
        locked[_plain(name)].add(version)
    for name, versions in locked.items():
        found = installed.get(name)
        if found is not None and found not in versions:
            yield (
                f"{name} is {found}, and requirements.lock has {' or '.join(sorted(versions))}, "
                "with which Casewire was tested; run make setup"
            )


def role_problems(processes: Sequence[Running], version: str) -> Iterator[str]:
    """Name the processes that were started before an upgrade."""
    for each in processes:
        if each.version and each.version != version:
            yield (
                f"{each.role} (process {each.pid}) runs Casewire {each.version}, and {version} is "
                "installed; start it anew"
            )


async def of_the_workers(config: Config) -> Sequence[str]:
    """Look at the workers of the whole cluster, which tell their versions to the brokers."""
    kafka = config.cluster
    roles = ["streams", *(f"sink-{name}" for name in config.sinks), "alerts"]
    async with admin(kafka) as client:
        members = {role: await members_of(client, kafka.group(role)) for role in roles}
    return list(member_problems(members))


def member_problems(members: Mapping[str, Sequence[Member]]) -> Iterator[str]:
    """Name the workers whose version is another one than ours."""
    for role, each in members.items():
        hosts = sorted({member.host for member in each if member.client_id != CLIENT_ID})
        if hosts:
            yield (
                f"{role} on {', '.join(hosts)} is of another version than Casewire {_OWN} here; "
                "finish the upgrade, or its undoing"
            )


async def of_the_brokers(config: Config) -> Sequence[str]:
    """Look whether the brokers are new enough, and all of one version."""
    async with admin(config.cluster) as client:
        nodes = [each["node_id"] for each in (await client.describe_cluster())["brokers"]]
        answers = {
            node: (await client._send_request(ApiVersionRequest(), node)).api_versions  # noqa: SLF001
            for node in nodes
        }
    return list(broker_problems(answers))


def broker_problems(answers: Mapping[int, Sequence[tuple[int, int, int]]]) -> Iterator[str]:
    """Judge brokers, by id, by the requests that they take: number, first and last version."""
    for broker, versions in answers.items():
        if {key: last for key, _, last in versions}.get(_FETCH, 0) < _LEAST_FETCH:
            yield f"broker {broker} is older than Kafka 2.3, which Casewire needs; upgrade it"
    if len({frozenset(map(tuple, versions)) for versions in answers.values()}) > 1:
        yield (
            f"the brokers {', '.join(map(str, sorted(answers)))} are of different versions; "
            "finish their upgrade"
        )


def _installed() -> Mapping[str, str]:
    return {_plain(each.name): each.version for each in metadata.distributions()}


def _plain(name: str) -> str:
    """Return a package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
