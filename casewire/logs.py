"""Log lines in one schema (docs/logs.md): JSON to a file or a collector, readable on a terminal.

Never a body, a header or a value of one. So an error is told by its class and by where it was
raised, and by its text only if that is ours and quotes nobody: drivers quote data.
"""

import logging
import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from casewire.config import LogLevel
from schemas.errors import ConfigError, QueryError, UnavailableError, WorkerError

#: Their lines at INFO tell of every heartbeat and fetch.
_TALKATIVE: Final = ("aiokafka", "faust", "mode", "uvicorn", "asyncio")
_OURS: Final = ("casewire", "ingress", "streams", "sinks", "kafka_clients")
_LONGEST_EVENT: Final = 500
_LONGEST_CHAIN: Final = 10
_FIRST: Final = ("timestamp", "level", "role", "instance", "pid", "logger", "event")
#: Their texts are ours and hold no value that was sent.
_PLAIN: Final = (ConfigError, QueryError, UnavailableError, WorkerError)

_log = structlog.get_logger(__name__)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes the lines of a role; records of libraries name an error by its class."""

    def handle(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                type(each).__name__ if isinstance(each, BaseException) else each
                for each in record.args
            )
        return super().handle(record)


def set_up_logs(role: str, level: LogLevel = "info", stream: TextIO = sys.stderr) -> None:
    """Send the logs of structlog and of the standard library to `stream`, one line each.

    What would go there past the logs (warnings, errors of threads and of finalizers) becomes a
    line too.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Origin(role),
        _told_errors,
    ]
    renderer = (
        structlog.dev.ConsoleRenderer() if stream.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _one_line],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _in_order,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.INFO))
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(number)
    # Faust builds debug records that it never prints (measured.md §4).
    logging.disable(logging.NOTSET if level == "debug" else logging.DEBUG)
    _leave_nothing_out()


def show_warnings() -> None:
    """Have a command show what parts of it that roles have too would log, to the person there."""
    structlog.configure(
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )


def tell_end(error: BaseException, text: str) -> bool:
    """Write a role's last line, if its lines are JSON; return whether that was so."""
    handlers = logging.getLogger().handlers
    ours = [each for each in handlers if isinstance(each, _Handler)]
    if not ours or ours[0].stream.isatty():
        return False
    if isinstance(error, _PLAIN):
        _log.critical("the process ends", error=type(error).__name__, reason=text)
    else:
        _log.critical("the process ends", exc_info=error)
    return True


def traceback_of(error: BaseException) -> str:
    """Return where an error and what caused it were raised, without what drivers say."""
    return "\n".join(line for each in _chain(error) for line in _lines(each))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_LONGEST_CHAIN):
        if error is None:
            return
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _lines(error: BaseException) -> Iterator[str]:
    yield f"{type(error).__name__}: {error}" if isinstance(error, _PLAIN) else type(error).__name__
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {frame.filename}:{frame.lineno} in {frame.name}"


class _Origin:
    """Says on each line which process wrote it."""

    def __init__(self, role: str) -> None:
        self._fields = {"role": role, "instance": socket.gethostname(), "pid": os.getpid()}

    def __call__(self, logger: WrappedLogger, name: str, line: EventDict) -> EventDict:
        line.update(self._fields)
        return line


def _told_errors(logger: WrappedLogger, name: str, line: EventDict) -> EventDict:
    line.pop("stack_info", None)
    raised = line.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    error = raised[1] if isinstance(raised, tuple) else raised
    if isinstance(error, BaseException):
        line.setdefault("error", type(error).__name__)
        line["traceback"] = traceback_of(error)
    return line


def _one_line(logger: WrappedLogger, name: str, line: EventDict) -> EventDict:
    """Keep the first line of what a library says: asyncio shows errors and values below it."""
    line["event"] = line["event"].partition("\n")[0][:_LONGEST_EVENT]
    return line


def _in_order(logger: WrappedLogger, name: str, line: EventDict) -> EventDict:
    return {key: line[key] for key in (*_FIRST, *(key for key in line if key not in _FIRST))}


def _leave_nothing_out() -> None:
    logging.captureWarnings(capture=True)
    # What cannot be written is not to be shown with its values in another place.
    logging.raiseExceptions = False

    def of_thread(args: threading.ExceptHookArgs) -> None:
        _log.error("a thread ended", exc_info=args.exc_value)

    def of_finalizer(args: "sys.UnraisableHookArgs") -> None:
        _log.error("an error could not be raised", exc_info=args.exc_value)

    threading.excepthook = of_thread
    sys.unraisablehook = of_finalizer
