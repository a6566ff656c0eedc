"""What can be wrong with the roles: whether they run, answer, and have settled what they passed."""

from collections.abc import Iterator, Sequence
from typing import Final

import aiohttp

from casewire.addresses import Address, require_free
from casewire.config import Config
from casewire.doctor.processes import ask_all, expected_roles, process_problems
from casewire.health import running
from casewire.settled import Settled, count_settled
from casewire.sink_config import sources
from casewire.supervisor import ask_ready
from schemas.errors import DeliveryError, UnavailableError
from sinks.registry import make_sink

#: Offsets of each partition that a sink has passed and whose ends are looked at, the latest ones.
LATEST_OFFSETS: Final = 10_000
_DOMAIN_NOBODY_HAS: Final = "casewire-doctor"


async def addresses(config: Config) -> Sequence[str]:
    """Look whether other programs have the addresses of roles that do not run."""
    found = {each.role for each in running(config.run_dir)}
    wanted = {"ingress": (config.ingress.bind, "CASEWIRE_INGRESS_BIND")}
    if config.own_broker:  # then casewire up runs it all
        wanted["broker"] = (config.machine.broker_bind, "CASEWIRE_BROKER_BIND")
        wanted["console"] = (config.machine.console_bind, "CASEWIRE_CONSOLE_BIND")
    return [
        problem
        for role, (address, setting) in wanted.items()
        if role not in found
        for problem in _taken(address, setting)
    ]


def _taken(address: str, setting: str) -> Iterator[str]:
    try:
        require_free(Address.parse(address), setting)
    except UnavailableError as error:
        yield str(error)


async def roles(config: Config) -> Sequence[str]:
    """Look whether every role runs and is ready: where `processes` says, else on this machine."""
    expected = expected_roles(config)
    if config.machine.processes:
        return process_problems(expected, await ask_all(config.machine.processes))
    found = [each for each in running(config.run_dir) if each.role != "broker"]
    problems = [
        f"{role} does not run here; start casewire up, or casewire {expected[role]}"
        for role in sorted(expected.keys() - {process.role for process in found})
    ]
    for process in found:
        reason = await ask_ready(process.address)
        if reason is not None:
            log = config.run_dir / f"{process.role}.log"
            problems.append(
                f"{process.role} (process {process.pid}) is not ready: {reason}; see {log}"
            )
    return problems


async def ingress(config: Config) -> Sequence[str]:
    """Ask as HQ's "Test connection" does; any answer shows that the ingress is there."""
    if config.machine.processes and "ingress" not in {
        each.role for each in running(config.run_dir)
    }:
        return []
    domain = next(iter(config.domains), _DOMAIN_NOBODY_HAS)
    url = f"http://{config.ingress.bind}/api/v1/in/{domain}"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(url) as answer,
        ):
            return ingress_problems(url, answer.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        return [f"{url} does not answer ({type(error).__name__}); start casewire up"]


def ingress_problems(url: str, status: int) -> Sequence[str]:
    """Judge the answer to a GET without credentials; 503 is also that to an unknown domain."""
    if status in (200, 401, 403, 503):
        return []
    return [f"{url} answers {status}, which no ingress does; end the program that has its address"]


async def sinks(config: Config) -> Sequence[str]:
    problems = []
    for name, settings in config.sinks.items():
        target = make_sink(name, settings, config.data_dir)
        try:
            await target.open()
        except DeliveryError as error:
            said = f"; it says: {error.target_error}" if error.target_error else ""
            problems.append(f"{name} cannot be opened ({error}){said}; correct [sinks.{name}]")
        finally:
            await target.close()
    return problems


async def deliveries(config: Config) -> Sequence[str]:
    """Count the third sum of contract §6 over the latest offsets that each sink has passed."""
    counted = await count_settled(config.cluster, sources(config.sinks), LATEST_OFFSETS)
    return [unsettled_problem(each) for each in counted if each.unsettled]


def unsettled_problem(counted: Settled) -> str:
    stage, topic, partition = counted.source
    name = stage.removeprefix("sink:")
    return (
        f"the sink {name} has passed {len(counted.unsettled):,} events of {topic}/{partition} and "
        f"nothing says how they ended, the first at offset {counted.unsettled[0]}; write them "
        f"again by casewire replay --sink {name} --domain NAME, and report it"
    )
