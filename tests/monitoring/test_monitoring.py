"""The rules, the dashboard and the runbook of docs/monitoring, by Prometheus' own tools."""

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

DOCS: Final = Path(__file__).parents[2] / "docs"
MONITORING: Final = DOCS / "monitoring"
RULES: Final = MONITORING / "casewire.rules.yml"
TESTS: Final = sorted(MONITORING.glob("*.test.yml"))
#: What a histogram is asked for, and what the client library tells of any program.
PART: Final = re.compile(r"_(?:bucket|sum|count)$")
METRIC: Final = re.compile(r"\b(?:casewire|process)_\w+")
RECORDED: Final = re.compile(r"\bcasewire:[\w:]+")
#: What Grafana replaces, by what it could be.
VARIABLES: Final = {"$__rate_interval": "5m", "$sink": "warehouse"}


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> Sequence[Mapping[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> Mapping[str, Mapping[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboard() -> Any:
    return orjson.loads((MONITORING / "grafana.json").read_bytes())


def panels() -> Sequence[Any]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Yield what the dashboard asks Prometheus for."""
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield expression


def test_promtool_and_amtool_take_every_file() -> None:
    run("promtool", "check", "rules", RULES.name)
    run("promtool", "check", "config", "prometheus.yml")
    run("amtool", "check-config", "alertmanager.yml")


def test_every_alert_fires_and_is_quiet_as_its_tests_say() -> None:
    cases = [each for file in TESTS for each in yaml.safe_load(file.read_text("utf-8"))["tests"]]
    for wanted in (True, False):
        tested = [
            test["alertname"]
            for case in cases
            for test in case["alert_rule_test"]
            if bool(test["exp_alerts"]) is wanted
        ]
        assert sorted(tested) == sorted(alerts())
    run("promtool", "test", "rules", *(file.name for file in TESTS))


def test_what_is_asked_for_is_documented() -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    known = set(METRIC.findall(page)) | {"casewire_role"}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for expression in [*(rule["expr"] for rule in rules()), *expressions()]:
        names = {PART.sub("", name) for name in METRIC.findall(expression)}
        assert names <= known, expression
        assert set(RECORDED.findall(expression)) <= recorded, expression


def test_the_dashboard_asks_what_prometheus_understands(tmp_path: Path) -> None:
    asked = [
        {"record": f"panel:{number}", "expr": expression}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "asked.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}))
    assert f"{len(asked)} rules found" in run("promtool", "check", "rules", str(file))


def test_each_panel_says_what_it_shows_in_which_unit() -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == source, panel["title"]
        assert all(target["datasource"] == source for target in panel["targets"])
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {each["name"]: each["type"] for each in dashboard()["templating"]["list"]}
    assert variables["datasource"] == "datasource"


def places(box: Mapping[str, int]) -> set[tuple[int, int]]:
    return {
        (box["x"] + right, box["y"] + down) for right in range(box["w"]) for down in range(box["h"])
    }


def test_no_panel_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        own = places(panel["gridPos"])
        assert not own & taken, panel["title"]
        assert max(x for x, _ in own) < 24, panel["title"]
        taken |= own


def test_each_alert_has_an_entry_in_the_runbook_and_a_link_to_it() -> None:
    page = (DOCS / "runbook.md").read_text(encoding="utf-8")
    entries = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=\n##|\Z)", page, re.MULTILINE | re.DOTALL))
    assert list(entries) == list(alerts())
    guide = (DOCS / "operate.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\(runbook\.md#(casewire\w+)\)", guide) == [*map(str.lower, entries)]
    for name, entry in entries.items():
        assert "**Means:**" in entry, name
        assert "**Look at" in entry, name
        assert re.search(r"\*\*Do:|and do:", entry), name
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")
