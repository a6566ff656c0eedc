"""A changelog whose last offsets hold nothing, as compaction and transactions leave it."""

from collections.abc import Mapping
from typing import Any, Final

import faust

LOOK_SECONDS: Final = 1.0


class EmptyTail(faust.Service):
    """Ends a recovery that would wait for ever for a record at the end of its changelog.

    Faust takes a table for recovered when it has read the last offset. There may be none to read:
    a null that was compacted away, or the mark of a transaction. So where the consumer has come to
    the end and nothing is on its way, for two looks in a row, the end is what has been read.
    """

    def __init__(self, app: Any) -> None:
        super().__init__()
        self.app = app
        self._at_end: Mapping[Any, int] = {}

    @faust.Service.task
    async def _watch(self) -> None:
        async for _ in self.itertimer(LOOK_SECONDS, name="empty tail"):
            at_end = await self._look() if self.app.in_recovery else {}
            recovery = self.app.tables.recovery
            for tp, read in at_end.items():
                if self._at_end.get(tp) == read == recovery.active_offsets.get(tp):
                    recovery.active_highwaters[tp] = read
            self._at_end = at_end

    async def _look(self) -> Mapping[Any, int]:
        """Return the partitions whose ends the consumer has come to, with what it has read."""
        recovery = self.app.tables.recovery
        if not self.app.tables.changelog_queue.empty():
            return {}
        found = {}
        for tp, left in recovery.active_remaining().items():
            highwater, read = recovery.active_highwaters[tp], recovery.active_offsets[tp]
            if left > 0 and tp in self.app.consumer.assignment():
                position = await self.app.consumer.position(tp)
                if position is not None and position > highwater:
                    found[tp] = read
        return found
