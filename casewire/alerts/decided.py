"""Which alerts are over because people have decided on each of their dead letters."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from aiokafka.errors import KafkaError

from casewire.alerts.reports import of_letter
from casewire.alerts.state import State
from casewire.alerts.troubles import Trouble
from casewire.dead_letters import LETTERS, Letter, letter_of, read_letters, with_states
from casewire.reading import offsets_since
from schemas.errors import UnavailableError, named
from schemas.settings import KafkaSettings
from schemas.times import to_microseconds

#: Between two looks, while somebody decides on one letter after the other.
EVERY_SECONDS: Final = 30.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Decided:
    """Looks after decisions were made, and when this process takes over."""

    kafka: KafkaSettings
    every_seconds: float = EVERY_SECONDS
    _next: float = 0.0

    async def look(self, state: State, now: str) -> None:
        """Tell the desk of whose dead letters none is open any more."""
        if not state.decided or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self.every_seconds
        try:
            await self._look(state, now)
        except (KafkaError, UnavailableError) as error:
            _log.warning("the dead letters cannot be read now", **named(error))
        else:
            state.decided = False

    async def _look(self, state: State, now: str) -> None:
        waiting = [each for each in state.desk.troubles.values() if _may_be_over(each)]
        if waiting:
            letters = await _letters_since(self.kafka, min(each.since for each in waiting))
            for trouble in waiting:
                if all_closed(trouble, letters.get(trouble.group, ())):
                    state.desk.mended(trouble.group, now)


def all_closed(trouble: Trouble, letters: Sequence[Letter]) -> bool:
    """Whether all dead letters of a trouble are replayed or discarded.

    `letters` are those of its group since it opened. It may tell of events that became no letters:
    those that stopped a worker.
    """
    known = {letter.captured_id for letter in letters}
    return known.issuperset(trouble.captured_ids) and all(
        letter.status != "open" for letter in letters
    )


def _may_be_over(trouble: Trouble) -> bool:
    return trouble.open and bool(trouble.captured_ids) and trouble.mended <= trouble.last


async def _letters_since(kafka: KafkaSettings, since: str) -> Mapping[str, Sequence[Letter]]:
    """Return the dead letters that came since then by their alert's group, each id once."""
    latest: dict[str, tuple[str, Letter]] = {}
    start = await offsets_since(kafka, LETTERS, to_microseconds(since) // 1000)
    async for record, value in read_letters(kafka, start):
        letter = letter_of(record, value)
        latest[letter.id] = of_letter(value, record, value.failed_at, {}).group, letter
    closed = await with_states(kafka, [letter for _, letter in latest.values()])
    found: defaultdict[str, list[Letter]] = defaultdict(list)
    for (group, _), letter in zip(latest.values(), closed, strict=True):
        found[group].append(letter)
    return found
