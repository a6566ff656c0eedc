"""What the user of [kafka] may do on the cluster, beside what the roles need."""

from collections.abc import Mapping, Sequence
from typing import Final

from casewire.config import Config
from casewire.health import running
from casewire.sink_config import sources
from casewire.topics import admin
from kafka_clients.login import login_of
from kafka_clients.rights import Right, lacking_rights, rights

#: Who gives commands; the roles are judged.
_PEOPLE: Final = frozenset({"operator", "administrator"})


async def permissions(config: Config) -> Sequence[str]:
    """Look whether the roles that run here, or all if none does, may do what they have to.

    The brokers are asked what the user may do (KIP-430); nothing is tried.
    """
    kafka = config.cluster
    wanted = rights(kafka, sources(config.sinks))
    judged = wanted.keys() - _PEOPLE
    here = judged & {each.role for each in running(config.run_dir)}
    async with admin(kafka) as client:
        lacking = {
            role: await lacking_rights(client._client, kafka, wanted[role])  # noqa: SLF001
            for role in sorted(here or judged)
        }
    return problems(login_of(kafka).user or "ANONYMOUS", lacking)


def problems(user: str, lacking: Mapping[str, Sequence[Right]]) -> Sequence[str]:
    """Return a line for each role that lacks a right."""
    return [
        f"the user {user} lacks {missing[0]}{_and_more(len(missing) - 1)}, which {role} needs; "
        f"casewire topics acls {role} prints the commands that give it"
        for role, missing in lacking.items()
        if missing
    ]


def _and_more(count: int) -> str:
    return f" and {count} rights more" if count else ""
