import re
from pathlib import Path

import click
import pytest

from casewire.cli import COMMANDS, Entry, casewire, configured_file, run


def every_command() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = [("casewire", casewire)]
    for name, entry in COMMANDS.items():
        command = entry.load()
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", each) for sub, each in command.commands.items()]
    return found


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name, _ in every_command():
        arguments = [] if name == "casewire" else name.split()
        assert run([*arguments, "--help"], {}) == 0
        shown = capsys.readouterr().out
        assert re.search(
            rf"Examples?:\s.*casewire .*{re.escape(arguments[-1] if arguments else 'up')}",
            shown,
            re.DOTALL,
        ), name


def test_wrong_usage_is_2_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nonsense"], {}) == 2
    assert run(["tail"], {}) == 2
    assert run(["tail", "cases", "-n", "0"], {}) == 2
    assert "No such command 'nonsense'" in capsys.readouterr().err


def test_a_wrong_configuration_is_1_with_a_line_for_each_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "casewire.toml"
    file.write_text("[kafka]\nx = 1\n[ingress]\ny = 1\n", encoding="utf-8")
    for command in ("up", "ingress", "streams"):
        assert run(["--config", str(file), command], {}) == 1
        lines = capsys.readouterr().err.splitlines()
        assert [line.partition(": unknown")[0] for line in lines] == [
            "casewire: [kafka] x",
            "casewire: [ingress] y",
        ]


def test_the_file_is_that_of_the_option_the_environment_or_the_folder(tmp_path: Path) -> None:
    assert configured_file({}, tmp_path) is None
    (tmp_path / "casewire.toml").touch()
    assert configured_file({}, tmp_path) == tmp_path / "casewire.toml"
    assert configured_file({"CASEWIRE_CONFIG": "x.toml"}, tmp_path) == Path("x.toml")


def test_an_unknown_sink_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sink", "sqlit"], {}) == 1
    assert capsys.readouterr().err == ("casewire: there is no sink 'sqlit'; did you mean sqlite?\n")


def test_the_unexpected_is_one_sentence_and_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    monkeypatch.setattr(Entry, "load", broken)
    assert run(["doctor"], {"CASEWIRE_DATA_DIR": str(tmp_path)}) == 1
    error = capsys.readouterr().err
    assert error.startswith("casewire: an unexpected ZeroDivisionError stopped this command")
    assert "Traceback" not in error
    assert "ZeroDivisionError" in (run_dir / "errors.log").read_text(encoding="utf-8")


def broken(entry: Entry) -> click.Command:
    raise ZeroDivisionError
