"""Dead letters: what could not be processed, with all that is needed to repair and replay it."""

from collections.abc import Sequence
from typing import TypedDict

from schemas.errors import Cause
from schemas.values import Value


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
