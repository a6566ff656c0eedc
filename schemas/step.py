"""How long something takes that never takes long, unless what does it is stuck."""

import time
from collections.abc import Callable


class Step:
    """Something that is done again and again: begun, and ended or begun anew.

    `text` says what it means when it takes longer than `patience` (seconds of `clock`).
    """

    def __init__(
        self, text: str, patience: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._text = text
        self._patience = patience
        self._clock = clock
        self._began: float | None = None

    def begin(self) -> None:
        self._began = self._clock()

    def end(self) -> None:
        self._began = None

    @property
    def seconds(self) -> float:
        """How long it has been under way; 0 if it is not."""
        return 0.0 if self._began is None else self._clock() - self._began

    @property
    def overdue(self) -> str | None:
        """Why it takes too long; None if it does not."""
        seconds = self.seconds
        return None if seconds <= self._patience else f"{self._text} for {seconds:.0f} s"
