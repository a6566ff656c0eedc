"""docker/kubernetes as kustomize renders it, against Kubernetes', KEDA's and Prometheus' schemas.

It has never run on a cluster here. tests/containers/install gets the tools.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from casewire.broker import ROOT
from casewire.config import load_config

pytestmark = pytest.mark.nightly

MANIFESTS = ROOT / "docker" / "kubernetes"
TOOLS = ROOT / ".venv" / "kubernetes"
#: The oldest version that is promised.
KUBERNETES = "1.27"
CUSTOM = {
    "ScaledObject": "keda.sh_scaledobjects.yaml",
    "ServiceMonitor": "monitoring.coreos.com_servicemonitors.yaml",
}
WORKLOADS = ("Deployment", "StatefulSet", "Job")

Object = Mapping[str, Any]


def rendered(folder: Path) -> Sequence[Object]:
    command = [str(TOOLS / "bin" / "kustomize"), "build", str(folder)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def objects() -> Sequence[Object]:
    return rendered(MANIFESTS)


def named(objects: Sequence[Object], kind: str) -> Mapping[str, Object]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def pods(objects: Sequence[Object]) -> Mapping[str, Object]:
    """Return the pod templates by name of what makes them."""
    return {
        name: each["spec"]["template"]
        for kind in WORKLOADS
        for name, each in named(objects, kind).items()
    }


def test_kubernetes_knows_every_field(objects: Sequence[Object], tmp_path: Path) -> None:
    files = []
    for number, each in enumerate(objects):
        if each["kind"] not in CUSTOM:
            files.append(tmp_path / f"{number}.yaml")
            files[-1].write_text(yaml.safe_dump(each))
    assert len(files) > 15
    check = [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", KUBERNETES]
    done = subprocess.run(
        [*check, *map(str, files)],
        env={**os.environ, "PYTHONPATH": str(TOOLS / "python")},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", CUSTOM)
def test_the_operators_know_every_field(objects: Sequence[Object], kind: str) -> None:
    definition = yaml.safe_load((TOOLS / CUSTOM[kind]).read_text())
    found = named(objects, kind)
    assert found
    for each in found.values():
        (schema,) = (
            version["schema"]["openAPIV3Schema"]
            for version in definition["spec"]["versions"]
            if each["apiVersion"] == f"{definition['spec']['group']}/{version['name']}"
        )
        errors = Draft202012Validator(closed(schema)).iter_errors(each)
        assert [f"{error.json_path}: {error.message}" for error in errors] == []


def closed(schema: Any) -> Any:
    """Return a schema that refuses keys which it does not name, as `kubectl --validate` does."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema["properties"].keys() != {"metadata"}:
        inner.setdefault("additionalProperties", False)
    return inner


def test_without_the_operators_the_rest_is_the_same(objects: Sequence[Object]) -> None:
    ours = [each for each in objects if each["kind"] not in CUSTOM]
    assert sorted(rendered(MANIFESTS / "base"), key=str) == sorted(ours, key=str)


def test_every_pod_is_hardened(objects: Sequence[Object]) -> None:
    for name, template in pods(objects).items():
        pod = template["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"], name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        # A service named casewire… would give every pod variables that Casewire refuses.
        assert pod["enableServiceLinks"] is False, name
        assert pod["automountServiceAccountToken"] is False, name


def test_what_selects_pods_selects_some(objects: Sequence[Object]) -> None:
    labels = [template["metadata"]["labels"] for template in pods(objects).values()]
    selectors = [
        each["spec"]["selector"].get("matchLabels", each["spec"]["selector"])
        for kind in (*WORKLOADS[:2], "Service", "PodDisruptionBudget")
        for each in named(objects, kind).values()
    ]
    selectors += [
        each["spec"]["podSelector"].get("matchLabels", {})
        for each in named(objects, "NetworkPolicy").values()
    ]
    assert [
        each for each in selectors if not any(each.items() <= one.items() for one in labels)
    ] == []
    for each in named(objects, "ScaledObject").values():
        target = each["spec"]["scaleTargetRef"]
        assert target["name"] in named(objects, target["kind"])


def test_the_configuration_is_right(objects: Sequence[Object], tmp_path: Path) -> None:
    maps = named(objects, "ConfigMap").values()
    (text,) = (each["data"]["casewire.toml"] for each in maps if "casewire.toml" in each["data"])
    (env,) = (each["data"] for each in maps if "casewire.toml" not in each["data"])
    (tmp_path / "secrets").mkdir()
    for template in pods(objects).values():
        (config,) = (each for each in template["spec"]["volumes"] if each["name"] == "config")
        for item in config["projected"]["sources"][1]["secret"]["items"]:
            secret = "postgresql://db.example.org/warehouse" if "url" in item["key"] else "ab" * 32
            (tmp_path / item["path"]).write_text(secret)
    (tmp_path / "casewire.toml").write_text(text)
    streams = {"CASEWIRE_STREAMS_BIND": "10.1.2.3:8082"}
    config = load_config(tmp_path / "casewire.toml", {**env, **streams})
    assert set(pods(objects)) >= {f"sink-{name}" for name in config.sinks}
    service, _, port = config.machine.processes[0].partition(":")
    assert [each["port"] for each in named(objects, "Service")[service]["spec"]["ports"]] == [
        int(port)
    ]
    scaled = [each["spec"] for each in named(objects, "ScaledObject").values()]
    assert {each["maxReplicaCount"] for each in scaled} == {config.kafka.partitions}
    topics = {each["triggers"][0]["metadata"]["topic"] for each in scaled}
    assert topics == {config.kafka.topic("captured"), config.kafka.topic("case-state")}
