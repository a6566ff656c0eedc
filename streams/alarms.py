"""What a sink's worker reports on `casewire.alerts` of its target (pure but for the errors)."""

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

from schemas.alert import Alert, group_of
from schemas.errors import DeliveryError
from streams.records import Out

TargetCause: TypeAlias = Literal["target_unavailable", "target_refuses"]
_TEXTS: Final[dict[TargetCause, str]] = {
    "target_unavailable": (
        "the target does not take anything at the moment{}; it is tried again until it does, and "
        "nothing is lost: see whether it runs and can be reached"
    ),
    "target_refuses": (
        "the target refuses to work for Casewire, and the sink has stopped{}; nothing is lost: "
        "correct its address, credentials or privileges, and start the sink anew"
    ),
}
#: Where the errors of drivers have the code that the target gave.
_CODES: Final = ("sqlstate", "sqlite_errorname", "status")
#: An alert is read on a telephone.
_LONGEST_WORDS: Final = 1000


def of_target(
    sink: str, cause: TargetCause, error: DeliveryError, *, safe: bool, raised_at: str
) -> Alert:
    """Return the report that a sink's target is down, or refuses to work.

    What the target said word for word is repeated only if it is `safe`.
    """
    stage = f"sink:{sink}"
    code = error_code(error)
    return Alert(
        group=group_of("", stage, cause, sink),
        domain="",
        stage=stage,
        cause=cause,
        target=sink,
        text=_TEXTS[cause].format(f" ({code})" if code else ""),
        captured_ids=(),
        raised_at=raised_at,
        target_error=error.target_error[:_LONGEST_WORDS] if safe else "",
    )


def error_code(error: BaseException) -> str:
    """Return class and code of what the driver raised, without any word of the target's."""
    return ", ".join(_codes(error.__cause__)) if error.__cause__ is not None else ""


def _codes(cause: BaseException) -> Iterator[str]:
    yield type(cause).__name__
    for name in _CODES:
        code = getattr(cause, name, None)
        if isinstance(code, str | int):
            yield str(code)


def as_record(alert: Alert) -> Out:
    """Return the record for `casewire.alerts`."""
    return Out(alert.group.encode(), alert.to_json(), alert.headers())
