"""Dead letters: what could not be processed, with all that is needed to repair and replay it."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, TypedDict

from schemas.errors import Cause
from schemas.values import Json, Value

Closed: TypeAlias = Literal["replayed", "discarded"]


class Original(TypedDict):
    """The record that failed. `key`, `value` and header values are base64.

    `value` is None if the record had none, or if it is longer than 1 MiB: then `topic`,
    `partition` and `offset` are the way to it, and `value_bytes` still tells its length.
    """

    topic: str
    partition: int
    offset: int
    key: str | None
    value: str | None
    value_bytes: int
    headers: Sequence[tuple[str, str]]


class DeadLetter(Value, frozen=True, kw_only=True):
    """`stage` is `decode`, `state`, `stub` or `sink:NAME`.

    `explanation` holds no values of the body. `path` is the field's path in the body, empty if
    the body as a whole is meant. `target_error` is what a target said word for word: it may quote
    data, and is shown behind login only. `retryable`: whether the same record may pass later.
    """

    captured_id: str
    domain: str
    stage: str
    cause: Cause
    retryable: bool
    explanation: str
    path: str
    attempts: int
    failed_at: str
    target_error: str
    original: Original


class Repair(TypedDict):
    """What a letter was replayed with: a JSON Patch (RFC 6902), or a whole body in base64."""

    patch: Sequence[Json] | None
    body: str | None


class DeadLetterState(Value, frozen=True, kw_only=True):
    """What was decided on a dead letter, on `casewire.dead-letter-state` by the letter's id.

    It is about the letter at `offset` and those before it: one that came later, when the replay
    failed again, is open. `by` is who ran the command, and on which machine.
    """

    status: Closed
    offset: int
    by: str
    at: str
    reason: str
    repair: Repair | None
