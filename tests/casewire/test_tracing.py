import sys
from pathlib import Path

import pytest

from casewire.config import load_config
from casewire.tracing import TracingSettings, tracing
from schemas.errors import ConfigError

ENDPOINT = "http://127.0.0.1:9"


def configured(folder: Path, table: str) -> TracingSettings:
    file = folder / "casewire.toml"
    file.write_text(f"[tracing]\n{table}\n", encoding="utf-8")
    return load_config(file, {}).tracing


def test_headers_come_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("Authorization: Bearer x:y\n\nX-Team: a\n")
    found = configured(tmp_path, f'endpoint = "{ENDPOINT}"\nheaders_file = "headers"')
    assert found.headers == {"authorization": "Bearer x:y", "x-team": "a"}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('headers_file = "headers"', "headers_file: a line is no header; write NAME: VALUE"),
        ('headers_file = "gone"', "headers_file: .* cannot be read"),
        ('endpoint = "collector:4318"', "endpoint"),
        ("sample_ratio = 2", "sample_ratio"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    tmp_path: Path, table: str, told: str
) -> None:
    (tmp_path / "headers").write_text("Bearer x\n")
    with pytest.raises(ConfigError, match=rf"\[tracing\] {told}"):
        configured(tmp_path, table)


def test_without_an_endpoint_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with tracing(TracingSettings(), "streams") as tracer:
        assert tracer is None
    with (
        pytest.raises(ConfigError, match="its extra `tracing`"),
        tracing(TracingSettings(endpoint=ENDPOINT), "streams"),
    ):
        pass


def test_the_share_that_is_recorded_is_the_configured_one() -> None:
    for ratio, wanted in ((0.0, {False}), (1.0, {True})):
        with tracing(TracingSettings(endpoint=ENDPOINT, sample_ratio=ratio), "x") as tracer:
            assert tracer is not None
            assert {tracer.wanted() for _ in range(50)} == wanted
