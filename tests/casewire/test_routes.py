from pathlib import Path

import orjson
import pytest

from casewire.cli import run
from tests.schemas.captures import HQ

CONFIG = """
[exclusions.test-users]
match = { any = [{ properties = { owner_id = "tester" } }, { metadata = { username = "t" } }] }

[sinks.all]
type = "sql"

[sinks.households]
type = "sql"
match = { case_type = ["household", "family"] }

[sinks.real]
type = "sql"
exclude = ["test-users"]
"""


def routes(tmp_path: Path, capsys: pytest.CaptureFixture[str], body: bytes) -> list[str]:
    (tmp_path / "casewire.toml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "body").write_bytes(body)
    config = str(tmp_path / "casewire.toml")
    status = run(["--config", config, "routes", "try", str(tmp_path / "body")], {})
    said = capsys.readouterr()
    return said.out.splitlines() if status == 0 else [said.err.strip()]


def test_a_case_goes_where_it_matches_and_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = orjson.loads((HQ / "case_json_current_open.json").read_bytes())
    tests_case = case | {"properties": case["properties"] | {"owner_id": "tester"}}
    assert routes(tmp_path, capsys, orjson.dumps(case)) == [
        "all         takes it, as case-state",
        "households  leaves it out: match.case_type is not met",
        "real        takes it, as case-state",
    ]
    assert routes(tmp_path, capsys, orjson.dumps(tests_case))[2] == (
        "real        leaves it out: [exclusions.test-users] matches it"
    )


def test_xml_is_tried_as_well_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = (HQ / "case_xml_v2_full.xml").read_bytes()
    assert routes(tmp_path, capsys, body)[0] == "all         takes it, as case-state"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<case", "this would be a dead letter, malformed_xml"),
        (b'{"form_id": "f1", "case_ids": [], "domain": "demo", "received_on": ""}', "form-stubs"),
    ],
)
def test_what_no_sink_could_take_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: bytes, said: str
) -> None:
    (line,) = routes(tmp_path, capsys, body)
    assert said in line
