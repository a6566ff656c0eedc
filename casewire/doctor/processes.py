"""The processes of an installation: which there must be, and what those on other machines say."""

import asyncio
import re
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from casewire.addresses import Address
from casewire.config import Config
from casewire.health import running
from casewire.supervisor import ask_ready

_ROLE: Final = re.compile(r'^casewire_build_info\{role="([^"]*)"', re.MULTILINE)
_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """What is at an address of `processes`: a role, empty if it cannot be told, and its trouble."""

    role: str
    problem: str = ""


def expected_roles(config: Config) -> Mapping[str, str]:
    """Return the roles that an installation needs, and the arguments that start each.

    The console is one of them if somebody is to log in: by `casewire up`, or as configured.
    """
    expected = {
        "ingress": "ingress",
        "streams": "streams",
        **{f"sink-{name}": f"sink {name}" for name in config.sinks},
    }
    if config.alerts.tells_somebody:
        expected["alerts"] = "alerts run"
    if config.own_broker or config.console.knows_users:
        expected["console"] = "console"
    return expected


def missing_roles(config: Config) -> Sequence[str]:
    """Return the roles that do not run, on a machine where all of them should; else none."""
    if not config.own_broker or config.machine.processes:
        return ()
    return sorted(expected_roles(config).keys() - {each.role for each in running(config.run_dir)})


async def ask_all(processes: Sequence[str]) -> Sequence[Asked]:
    """Ask the process at each address, `host:port`; a host may have several."""
    found = await asyncio.gather(*(_ask_host(each) for each in processes))
    return [asked for each in found for asked in each]


def process_problems(expected: Collection[str], asked: Sequence[Asked]) -> Sequence[str]:
    """Name what is not well; roles that nobody has only if it is known who has which."""
    problems = [each.problem for each in asked if each.problem]
    roles = {each.role for each in asked}
    if "" in roles:
        return problems
    return [
        *(
            f"{role} is at none of the addresses in processes; start it, and name it there"
            for role in sorted(set(expected) - roles)
        ),
        *problems,
    ]


async def _ask_host(text: str) -> Sequence[Asked]:
    address = Address.parse(text)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM
        )
    except OSError:
        return [_nobody(text)]
    places = list(dict.fromkeys(Address(str(each[0]), address.port) for *_, each in found))
    names = [text] if len(places) == 1 else [f"{text} ({each.host})" for each in places]
    return await asyncio.gather(*map(_ask, names, places))


async def _ask(name: str, place: Address) -> Asked:
    role = await _role_at(place)
    if not role:
        return _nobody(name)
    reason = await ask_ready(str(place))
    return Asked(role, f"{role} at {name} is not ready: {reason}; see its log" if reason else "")


def _nobody(name: str) -> Asked:
    return Asked("", f"no role answers at {name}; start it there, or take it out of processes")


async def _role_at(place: Address) -> str:
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{place}/metrics") as answer,
        ):
            told = _ROLE.search(await answer.text())
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        return ""
    return told[1] if told else ""
