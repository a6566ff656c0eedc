"""What a sink is: the promise between the runner (streams/delivery.py) and every connector."""

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from schemas.case import CaseState

Outcome: TypeAlias = Literal["written", "stale"]


class Sink(Protocol):
    """A target of case states.

    The runner calls `open` once, then `write` for one batch after the other, then `close`.
    """

    async def open(self) -> None:
        """Connect. Raises TransientError or TargetError; may be called again after either."""

    async def write(self, states: Sequence[CaseState]) -> Sequence[Outcome]:
        """Write a batch; return when the target has confirmed it, and not before.

        `states` holds each (domain, case id) at most once. Returns one outcome a state, in order:
        `stale` if the target already holds a greater version (an equal one is written again).
        The same batch twice, or a batch cut anywhere, leaves the same as once.

        Raises, with nothing written or only what a repeat makes right:
        - TransientError: the same batch can succeed later;
        - TargetError: the operator must act; no row is to blame;
        - RejectedRowsError: these rows will never be taken; the others can be written.
        """

    async def close(self) -> None:
        """Give everything back. Never raises; may be called at any time, and twice."""
