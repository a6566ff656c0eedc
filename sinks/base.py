"""What a sink is: the promise between the runner (streams/delivery.py) and every connector."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec
import orjson

from schemas.case import CaseEvent, CaseState
from schemas.envelope import Headers
from schemas.errors import Rejection, TransientError
from schemas.form import FormEvent, FormState
from schemas.times import from_microseconds
from schemas.values import Json

Source: TypeAlias = Literal["case-state", "form-state", "cases", "forms"]
"""A topic that sinks read, without its prefix."""

Outcome: TypeAlias = Literal["written", "stale"]
Result: TypeAlias = Outcome | Rejection | TransientError
"""How one message ended: at the target, as a dead letter, or not yet."""

Event: TypeAlias = CaseState | FormState | CaseEvent | FormEvent

EVENTS: Final[Mapping[Source, type[Event]]] = {
    "case-state": CaseState,
    "form-state": FormState,
    "cases": CaseEvent,
    "forms": FormEvent,
}


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A record on its way to a sink.

    A struct, as values are: one is made for each event.

    `value` is its JSON object and `event` the same with types; those of a null are what is left of
    a state long after its case was gone, and it is `forgotten`. `version` is that of a state, 0 for
    an event, which may have none. `timestamp` is when the broker appended it, in milliseconds since
    1970. One that is `replayed` comes by the topic `replays`: partition, offset and timestamp are
    those it has there.
    """

    source: Source
    partition: int
    offset: int
    timestamp: int
    key: str
    headers: Headers
    value: Mapping[str, Json]
    event: Event
    version: int
    replayed: bool = False
    forgotten: bool = False

    @property
    def kind(self) -> Literal["case", "form"]:
        return "case" if self.source in ("case-state", "cases") else "form"

    @property
    def captured_at(self) -> str:
        """When the ingress received the event (canonical), else when the broker appended it."""
        told = next((value for name, value in self.headers if name == "ce_time"), b"")
        return told.decode(errors="replace") or from_microseconds(self.timestamp * 1000)

    @property
    def domain(self) -> str:
        return self.key.partition("/")[0]

    @property
    def subject(self) -> str:
        """The id of the case or form."""
        return self.key.partition("/")[2]


def parsed(value: bytes, source: Source) -> tuple[Mapping[str, Json], Event]:
    """Return a record's value, plain and with types. Raises ValueError or TypeError."""
    plain = orjson.loads(value)
    return plain, EVENTS[source].from_object(plain)


class Sink(Protocol):
    """A target of cases and forms.

    The runner calls `open` once, then `write` for one batch after the other, then `close`.
    """

    async def open(self) -> None:
        """Connect. Raises TransientError or TargetError; may be called again after either."""

    async def write(self, messages: Sequence[Message]) -> Sequence[Result]:
        """Write a batch; return when the target has confirmed it, and not before.

        `messages` holds each key at most once, or, if the sink reads events (`every = true`), as
        often as it came, in order. Returns one result a message, in order: `stale` if the target
        already holds a greater version (an equal one is written again); a Rejection if it will
        never be taken; a TransientError if it was not written and may be later, and then so for all
        later messages of its key. The same batch twice, or a batch cut anywhere, leaves the same
        as once. Whatever it waits for has a limit of time.

        Raises, with nothing written or only what a repeat makes right:
        - TransientError: the same batch can succeed later;
        - TargetError: the operator must act; no row is to blame;
        - RejectedRowsError: these rows will never be taken; of the others nothing is said.
        """

    async def close(self) -> None:
        """Give everything back. Never raises; may be called at any time, and twice."""


@runtime_checkable
class Preparing(Protocol):
    """A sink that can make of messages what it writes before it is their turn.

    That is done while it writes what came before.
    """

    def prepare(self, messages: Sequence[Message]) -> Sequence[Any]:
        """Return one for each message, in order: a Rejection if it will never be taken."""

    async def write_prepared(self, prepared: Sequence[Any]) -> Sequence[Result]:
        """Write what was prepared; the same promise as `write`."""


@runtime_checkable
class Versioned(Protocol):
    """A sink whose target can be asked which versions it holds."""

    async def versions(self, messages: Sequence[Message]) -> Sequence[int | None]:
        """Return the version that the target holds of what each message is about, None if none.

        Changes nothing. May be called after `open`, and raises as it does.
        """
