import io
import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog

from casewire.logs import set_up_logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where logs go during a test; what was set up before is put back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:], root.level = handlers, level
    logging.disable(logging.NOTSET)
    structlog.reset_defaults()


def test_every_line_is_json_whoever_wrote_it(stream: io.StringIO) -> None:
    set_up_logs(stream)
    structlog.get_logger("casewire.x").info("started", role="ingress")
    try:
        int("broken")
    except ValueError:
        logging.getLogger("faust.y").exception("crashed in %s", "agent")
    logging.getLogger("aiokafka").info("a heartbeat")
    ours, theirs = map(orjson.loads, stream.getvalue().splitlines())
    assert (ours["event"], ours["role"], ours["level"]) == ("started", "ingress", "info")
    assert (theirs["event"], theirs["logger"]) == ("crashed in agent", "faust.y")
    assert "ValueError: invalid literal" in theirs["exception"]


def test_a_terminal_gets_readable_lines(stream: io.StringIO) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    set_up_logs(terminal)
    structlog.get_logger("casewire.x").warning("slow", seconds=3)
    assert "slow" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
