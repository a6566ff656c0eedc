"""Every error that Casewire raises on purpose.

CasewireError
├── ConfigError             the configuration is wrong; the text names the key and the remedy
├── UnavailableError        something Casewire needs is not there; the text says what to do
├── WorkerError             a streams worker must end, and be started anew; nothing is lost
├── QueryError              a question about states that has no answer, or not now
├── InvalidEventError       a captured body is not what its kind demands: a dead letter
└── DeliveryError           a sink could not write
    ├── TransientError      the same batch can succeed later: wait and try again
    ├── TargetError         the operator must act (credentials, privileges): stop and say so
    └── RejectedRowsError   some rows will never be taken: dead letters; the rest can be written
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Cause: TypeAlias = Literal[
    "malformed_xml",
    "malformed_json",
    "unknown_kind",
    "missing_id",
    "invalid_field",
    "too_large",
    "mapping_failed",
    "rejected_by_target",
    "authentication_failed",
    "conflict",
    "unexpected",
]


def named(error: BaseException) -> dict[str, str]:
    """Return how a log line names an error: by its class, and what the system says of it.

    Never by its text, which may quote data.
    """
    reason = error.strerror if isinstance(error, OSError) else None
    return {"error": type(error).__name__} | ({"reason": reason} if reason else {})


class CasewireError(Exception):
    """Base of all errors below. `str(error)` is one sentence for a person."""


class ConfigError(CasewireError):
    pass


class UnavailableError(CasewireError):
    pass


class WorkerError(CasewireError):
    pass


class QueryError(CasewireError):
    """`status` is HTTP's; `oldest` the earliest moment that can be asked for, if it was earlier."""

    def __init__(self, status: int, text: str, *, oldest: str | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.oldest = oldest


class InvalidEventError(CasewireError):
    """A body that cannot become a typed event.

    `explanation` never holds a value of the body: class, code and field path only (contract §7).
    """

    def __init__(self, cause: Cause, explanation: str, *, path: str = "") -> None:
        super().__init__(f"{explanation} (at {path})" if path else explanation)
        self.cause = cause
        self.explanation = explanation
        self.path = path


class DeliveryError(CasewireError):
    """`target_error` is what the target said word for word: it may quote data (contract §7).

    `str(error)` has none of it, and may be logged.
    """

    def __init__(self, explanation: str, *, target_error: str = "") -> None:
        super().__init__(explanation)
        self.target_error = target_error


class TransientError(DeliveryError):
    """`retry_after`: how many seconds the target asks to be left alone, 0 if it does not say."""

    def __init__(self, explanation: str, *, retry_after: float = 0, target_error: str = "") -> None:
        super().__init__(explanation, target_error=target_error)
        self.retry_after = retry_after


class TargetError(DeliveryError):
    pass


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a target refused one row.

    `explanation` is free of values; `target_error` is what the target said and may quote data.
    """

    cause: Cause
    explanation: str
    path: str = ""
    target_error: str = ""


class RejectedRowsError(DeliveryError):
    """`rows` maps the index in the batch to the reason. Nothing of the batch has been written."""

    def __init__(self, rows: Mapping[int, Rejection]) -> None:
        super().__init__(f"{len(rows)} rows were refused")
        self.rows = rows
