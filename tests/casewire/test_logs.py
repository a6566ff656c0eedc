import ast
import io
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import jsonschema
import orjson
import pytest
import structlog

from casewire.broker import ROOT
from casewire.logs import set_up_logs, show_warnings, tell_end, traceback_of
from schemas.errors import TargetError, UnavailableError
from schemas.values import Json

SCHEMA = orjson.loads((ROOT / "docs" / "log-line.schema.json").read_bytes())
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Where logs go during a test; what was set up before is put back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    yield io.StringIO()
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level
    logging.disable(logging.NOTSET)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[Mapping[str, Json]]:
    """Return what was written, each line held to the schema."""
    written = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    for line in written:
        jsonschema.validate(line, SCHEMA)
    return written


def refused() -> TargetError:
    """Return an error as a sink raises it, with a driver's words that quote a row."""
    try:
        try:
            raise ValueError("Failing row contains (Zipporah)")  # noqa: TRY301
        except ValueError as error:
            raise TargetError("PostgreSQL refuses: (Zipporah)") from error
    except TargetError as error:
        return error


def test_every_line_has_the_same_keys_whoever_wrote_it(stream: io.StringIO) -> None:
    set_up_logs("sink-warehouse", stream=stream)
    structlog.get_logger("casewire.x").info("started", count=3)
    logging.getLogger("faust.y").error("crashed in %s:\n more", "agent")
    logging.getLogger("aiokafka").info("a heartbeat")
    logging.getLogger("asyncio").error("Task exception\nfuture: Zipporah", exc_info=refused())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("something is old", DeprecationWarning, stacklevel=1)
    ours, theirs, task, warning = lines(stream)
    assert (ours["event"], ours["role"], ours["level"]) == ("started", "sink-warehouse", "info")
    assert (theirs["event"], theirs["logger"]) == ("crashed in agent:", "faust.y")
    assert (task["event"], task["error"]) == ("Task exception", "TargetError")
    assert "something is old" in str(warning["event"])


def test_an_error_is_told_without_the_words_of_others(stream: io.StringIO) -> None:
    set_up_logs("streams", stream=stream)
    error = refused()
    logging.getLogger("mode").error("Crashed reason=%r", error, exc_info=error)
    structlog.get_logger("streams.x").error("a crash", exc_info=error)
    assert tell_end(error, str(error))
    assert tell_end(UnavailableError("bring Kafka back"), "bring Kafka back")
    written = lines(stream)
    assert "Zipporah" not in stream.getvalue()
    assert written[0]["event"] == "Crashed reason='TargetError'"
    for line in written[:3]:
        assert str(line["traceback"]).splitlines()[0] == "TargetError"
        assert re.search(r"test_logs.py:\d+ in refused\nValueError\n", str(line["traceback"]))
    assert (written[3]["level"], written[3]["reason"]) == ("critical", "bring Kafka back")


def test_what_passes_the_logs_by_becomes_a_line(stream: io.StringIO) -> None:
    set_up_logs("streams", stream=stream)

    class Finalized:
        def __del__(self) -> None:
            raise refused()

    def fail() -> None:
        raise refused()

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    Finalized()
    assert [line["event"] for line in lines(stream)] == [
        "a thread ended",
        "an error could not be raised",
    ]
    assert "Zipporah" not in stream.getvalue()


def test_circles_of_causes_end() -> None:
    error = ValueError()
    error.__cause__ = error
    assert traceback_of(error)


@pytest.mark.parametrize(("level", "told"), [("debug", 3), ("info", 2), ("warning", 1)])
def test_the_level_is_that_of_our_own_lines(stream: io.StringIO, level: str, told: int) -> None:
    set_up_logs("streams", level, stream)  # type: ignore[arg-type]
    logger = structlog.get_logger("streams.level")
    for each in ("debug", "info", "warning"):
        getattr(logger, each)(each)
    logging.getLogger("faust").debug("a heartbeat")
    assert len(lines(stream)) == told
    assert logging.getLogger("streams.trail").isEnabledFor(logging.DEBUG) is (level == "debug")


def test_a_terminal_gets_readable_lines(stream: io.StringIO) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    set_up_logs("streams", stream=terminal)
    structlog.get_logger("casewire.x").warning("slow", seconds=3)
    assert "slow" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
    assert not tell_end(UnavailableError(""), "")


def test_the_documentation_names_every_key() -> None:
    text = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == set(SCHEMA["properties"])


def test_every_call_has_constant_words_and_documented_keys() -> None:
    """Data in the words of a line can be neither searched nor kept out."""
    wrong = []
    found = 0
    for package in ("casewire", "ingress", "streams", "sinks", "kafka_clients", "schemas"):
        for file in (ROOT / package).rglob("*.py"):
            for call in calls(file):
                found += 1
                keys = {keyword.arg for keyword in call.keywords if keyword.arg} - {"exc_info"}
                constant = [type(each) for each in call.args] == [ast.Constant]
                if not constant or not keys <= set(SCHEMA["properties"]):
                    wrong.append(f"{file}:{call.lineno}")
    assert found > 30
    assert wrong == []


def calls(file: Path) -> Iterator[ast.Call]:
    """Yield the calls of a logger in a file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = ast.unparse(node.func.value)
            if node.func.attr in LEVELS and name in ("_log", "log", "logger", "self.log"):
                yield node


def test_a_command_shows_warnings_to_the_person_there(capsys: pytest.CaptureFixture[str]) -> None:
    show_warnings()
    try:
        structlog.get_logger("streams.x").info("a batch")
        structlog.get_logger("streams.x").warning("the target takes nothing now", sink="a")
    finally:
        structlog.reset_defaults()
    told = capsys.readouterr()
    assert "the target takes nothing now" in told.err
    assert (told.out, told.err.count("\n")) == ("", 1)
