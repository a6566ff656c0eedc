"""The systemd units of docs/deploy, as systemd itself reads them."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "deploy"


@pytest.mark.parametrize(
    ("example", "instance"),
    [
        ("casewire.service", "casewire.service"),
        ("casewire-ingress.service", "casewire-ingress.service"),
        ("casewire-ingress@.service", "casewire-ingress@1.service"),
        ("casewire-streams.service", "casewire-streams.service"),
        ("casewire-sink@.service", "casewire-sink@warehouse.service"),
        ("casewire-alerts.service", "casewire-alerts.service"),
        ("casewire-console.service", "casewire-console.service"),
    ],
)
def test_systemd_has_nothing_against_a_unit(tmp_path: Path, example: str, instance: str) -> None:
    text = (EXAMPLES / example).read_text(encoding="utf-8")
    here = str(Path(sys.executable).with_name("casewire"))
    assert "/opt/casewire/.venv/bin/casewire" in text
    unit = tmp_path / instance
    unit.write_text(text.replace("/opt/casewire/.venv/bin/casewire", here), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)],
        capture_output=True,
        check=False,
        timeout=30,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_proxy_and_unit_is_named_in_the_operators_guide() -> None:
    guide = (EXAMPLES.parent / "operate.md").read_text(encoding="utf-8")
    assert [file.name for file in EXAMPLES.iterdir() if f"deploy/{file.name})" not in guide] == []
