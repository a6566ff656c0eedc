"""What is told of single events as they pass a stage: lines of the log, at the level `debug`."""

import logging
from typing import Self

import structlog

from streams.records import Record, about

_log = structlog.get_logger(__name__)
_standard = logging.getLogger(__name__)


class Trail:
    """Tells how the records of a batch ended at a stage."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    @classmethod
    def of(cls, stage: str) -> Self | None:
        """Return one if anybody wants to know."""
        return cls(stage) if _standard.isEnabledFor(logging.DEBUG) else None

    def passed(self, record: Record, outcome: str) -> None:
        _log.debug("an event passes", stage=self._stage, outcome=outcome, **about(record))
