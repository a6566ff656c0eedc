import tomllib
from pathlib import Path

import orjson
import pytest

from casewire.cli import run
from casewire.config import load_config
from casewire.sinks_command import described, keys
from sinks.registry import SETTINGS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("type_", SETTINGS)
def test_every_key_is_described_with_an_example_that_is_taken(type_: str, tmp_path: Path) -> None:
    example = described(type_).partition("```toml\n")[2].partition("```")[0]
    for key in keys(SETTINGS[type_]):
        assert key.description
        assert key.example is not None, key.name
    file = tmp_path / "casewire.toml"
    file.write_text(example.replace("NAME", "x"), encoding="utf-8")
    config = load_config(file, {})
    table = tomllib.loads(example)["sinks"]["NAME"]
    shown = orjson.loads(
        orjson.dumps({key: getattr(config.sinks["x"], key) for key in table if key != "type"})
    )
    assert shown | {"type": type_} == table


@pytest.mark.parametrize("type_", SETTINGS)
def test_the_documentation_says_the_same(type_: str) -> None:
    """docs/sinks.md holds what `casewire sinks describe` prints."""
    assert described(type_) in (ROOT / "docs" / "sinks.md").read_text(encoding="utf-8")


def test_types_are_listed_and_an_unknown_one_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["sinks", "list"], {}) == 0
    listed = capsys.readouterr().out
    assert all(f"{type_} " in listed for type_ in SETTINGS)
    assert run(["sinks", "describe", "sq"], {}) == 1
    assert "did you mean sql?" in capsys.readouterr().err
    assert run(["sinks", "describe", "sql", "--json"], {}) == 0
    names = {key["name"] for key in orjson.loads(capsys.readouterr().out)}
    assert {"url", "match", "batch_rows"} <= names
