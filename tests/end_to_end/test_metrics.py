"""What each role tells Prometheus, and docs/metrics.md: the same, both ways."""

import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import anyio
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from casewire.health import running
from schemas.times import now
from tests.end_to_end.system import System
from tests.end_to_end.test_samples import case, post
from tests.schemas.captures import JSON

pytestmark = [pytest.mark.anyio, pytest.mark.kafka, pytest.mark.postgres]

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "metrics.md"
ROLES: Final = frozenset({"ingress", "streams", "sink", "alerts", "console"})
ROW: Final = re.compile(
    r"^\| (`casewire_.*?`) \| (\w+) \| ([\w, ]*?) ?\| ([\w, ]+) \|", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Told:
    """A metric's kind and labels; `labels` is None of one that has no sample."""

    kind: str
    labels: frozenset[str] | None


def documented() -> Mapping[str, Mapping[str, Told]]:
    """Return what docs/metrics.md says, by role and name."""
    found: dict[str, dict[str, Told]] = {role: {} for role in ROLES}
    for names, kind, labels, roles in ROW.findall(PAGE.read_text(encoding="utf-8")):
        told = Told(kind, frozenset(re.findall(r"\w+", labels)))
        for role in ROLES if roles == "every" else roles.split(", "):
            found[role] |= dict.fromkeys(re.findall(r"`(\w+)`", names), told)
    return found


def scraped(text: str) -> Mapping[str, Told]:
    """Return what a process tells, by name, but for what the client library has in any program."""
    found = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = [frozenset(each.labels) - {"le"} for each in family.samples]
        assert len(set(labels)) <= 1, name
        found[name] = Told(family.type, labels[0] if labels else None)
    return {name: told for name, told in found.items() if name.startswith("casewire_")}


async def scrapes(system: System) -> Mapping[str, str]:
    """Return what each process tells, by its role."""
    found = {}
    async with aiohttp.ClientSession() as client:
        for process in running(system.folder / "data" / "run"):
            async with client.get(f"http://{process.address}/metrics") as answer:
                found[process.role] = await answer.text()
    return found


@pytest.fixture(scope="module")
async def text(system: System) -> AsyncIterator[Mapping[str, str]]:
    """What each role tells after a case and what is none, alerts and console beside them."""
    url = system.address("measured")
    told = [("server-modified-on", now()), ("content-type", JSON)]
    assert (await post(url, case("m1", domain="measured"), told))[0] == 200
    assert (await post(url, b"{", [("content-type", JSON)]))[0] == 200
    await system.caught_up()
    others = ("alerts run", "console")
    for role in others:
        system.start(role)
    await system.ready(others)
    yield await told_of_letters(system)
    for role in others:
        system.processes[role].terminate()
        system.processes.pop(role).wait(30)


async def told_of_letters(system: System) -> Mapping[str, str]:
    """Return what each role tells when the alerts role has looked at all of them."""
    with anyio.fail_after(60):
        while True:
            found = await scrapes(system)
            if "casewire_dead_letters_open{" in found["alerts"]:
                return found
            await anyio.sleep(0.2)


def value(text: str, name: str, **labels: str) -> float:
    """Return the sum of the samples of a name with these labels among theirs."""
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert found, name
    return sum(found)


async def test_each_role_tells_what_the_page_says_and_nothing_else(text: Mapping[str, str]) -> None:
    page = documented()
    assert text.keys() == {
        "ingress", "streams", "sink-files", "sink-warehouse", "alerts", "console",
    }  # fmt: skip
    for process, told in text.items():
        expected, found = page[process.partition("-")[0]], scraped(told)
        assert expected.keys() <= found.keys(), process
        for name, metric in found.items():
            # One without a sample is of another role, whose code this one shares.
            if metric.labels is not None:
                assert metric == expected[name], (process, name)


async def test_promtool_has_nothing_to_find_fault_with(text: Mapping[str, str]) -> None:
    for told in text.values():
        await anyio.run_process(["promtool", "check", "metrics"], input=told.encode())


async def test_the_figures_are_those_of_what_was_sent(text: Mapping[str, str]) -> None:
    sink, streams, alerts = text["sink-files"], text["streams"], text["alerts"]
    assert value(text["ingress"], "casewire_ingress_events_total", method="POST") >= 2
    assert value(streams, "casewire_decoded_events_total", topic="cases") >= 1
    assert value(streams, "casewire_judged_events_total", outcome="applied") >= 1
    assert value(streams, "casewire_dead_letters_total", cause="malformed_json") >= 1
    last = "casewire_last_event_timestamp_seconds"
    assert time.time() - value(streams, last, domain="measured", kind="cases") < 300
    assert value(streams, "casewire_partitions", topic="captured") == 4
    assert value(streams, "casewire_table_states", table="case-state") >= 1
    assert value(sink, "casewire_sink_write_seconds_count") >= 1
    young = value(sink, "casewire_sink_age_seconds_bucket", le="300.0")
    assert young - value(sink, "casewire_sink_age_seconds_bucket", le="1.0") >= 0
    assert young >= 1
    assert value(alerts, "casewire_alerts_active") == 1
    assert value(alerts, "casewire_dead_letters_open", cause="malformed_json") >= 1
    for role, told in (("streams", streams), ("sink-files", sink)):
        assert value(told, "casewire_lag_events", role=role) == 0
        assert value(told, "casewire_lag_seconds", role=role) == 0
        assert value(alerts, "casewire_group_lag_events", role=role) == 0


async def test_prometheus_finds_each_process(system: System, text: Mapping[str, str]) -> None:
    files = (system.folder / "data" / "run" / "targets").glob("*.json")
    found = [each for file in files for each in orjson.loads(file.read_bytes())]
    addresses = {each.address: each.role for each in running(system.folder / "data" / "run")}
    assert {each["targets"][0]: each["labels"]["casewire_role"] for each in found} == addresses
    assert text.keys() == set(addresses.values())
