"""What is told of single events as they pass a stage: lines at the level `debug`, and spans.

Of none of them, unless somebody asks for it: then there is no trail.
"""

import logging
import time

import structlog

from schemas.settings import KafkaSettings
from schemas.tracing import Tracer, sampled
from streams.records import Record, about

_log = structlog.get_logger(__name__)
_standard = logging.getLogger(__name__)


class Trail:
    """Tells how records end at a stage. `group` is the consumer group that reads them."""

    def __init__(self, stage: str, group: str, tracer: Tracer | None) -> None:
        self._stage = stage
        self._group = group
        self._tracer = tracer
        self._telling = _standard.isEnabledFor(logging.DEBUG)
        self.begin()

    def begin(self) -> None:
        """Take note that the work on a record, or on several at once, begins."""
        self._since_ns = time.time_ns()

    def passed(self, record: Record, outcome: str, *, failed: str = "") -> bytes:
        """Tell how a record ended; return the trace context of what follows from it.

        That is empty for a record that is not followed. `failed` is the cause of a dead letter.
        """
        if self._telling:
            _log.debug("an event passes", stage=self._stage, outcome=outcome, **about(record))
        parent = sampled(record.headers) if self._tracer is not None else b""
        if self._tracer is None or not parent:
            return b""
        name = f"{self._stage} {record.topic}"
        span = self._tracer.begin(name, "consumer", self._since_ns, parent=parent)
        found = about(record)
        span.end(
            {
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.operation.name": self._stage,
                "messaging.destination.name": record.topic,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
                "messaging.consumer.group.name": self._group,
                "messaging.message.id": found["event_id"],
                "casewire.domain": found.get("domain", ""),
                "casewire.outcome": outcome,
            },
            failed=failed,
        )
        return span.traceparent


def trail(stage: str, kafka: KafkaSettings, tracer: Tracer | None) -> Trail | None:
    """Return the trail of a stage, if anybody wants to know."""
    if tracer is None and not _standard.isEnabledFor(logging.DEBUG):
        return None
    role = stage.replace(":", "-") if stage.startswith("sink:") else "streams"
    return Trail(stage, kafka.group(role), tracer)
