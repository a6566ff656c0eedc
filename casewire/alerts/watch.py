"""Looks once in a while whether streams and sinks get on with what waits for them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from aiokafka.errors import KafkaError

from casewire.alerts.desk import Desk
from casewire.alerts.stalls import Progress, Worker
from casewire.progress import committed_offsets, end_offsets, members_of
from casewire.topics import admin
from schemas.alert import group_of
from schemas.errors import UnavailableError, named
from schemas.settings import KafkaSettings
from sinks.settings import SinkTable

#: Between two looks.
EVERY_SECONDS: Final = 30.0
#: A worker that does not move for so long has stopped, or hangs.
PATIENCE_SECONDS: Final = 600.0
#: What the streams worker reads; its ledger's stage.
_STREAMS: Final = ("captured", "cases", "case-changes", "forms", "users", "locations")
_STREAMS_STAGE: Final = "state"
_TARGET_CAUSES: Final = frozenset({"target_unavailable", "target_refuses"})

_log = structlog.get_logger(__name__)


def workers(kafka: KafkaSettings, sinks: Mapping[str, SinkTable]) -> Sequence[Worker]:
    """Return the streams worker, and that of each sink."""
    streams = Worker(
        stage=_STREAMS_STAGE,
        name="streams",
        group=kafka.group("streams"),
        topics=[kafka.topic(name) for name in _STREAMS],
        patience=PATIENCE_SECONDS,
    )
    return [
        streams,
        *(
            Worker(
                stage=f"sink:{name}",
                name=f"sink-{name}",
                group=kafka.group(f"sink-{name}"),
                topics=[kafka.topic(source) for source in sink.sources],
                patience=PATIENCE_SECONDS + 2 * sink.batch_seconds,
            )
            for name, sink in sinks.items()
        ),
    ]


@dataclass(slots=True)
class Watch:
    """The first of `watched` is the streams worker."""

    kafka: KafkaSettings
    watched: Sequence[Progress]
    every_seconds: float = EVERY_SECONDS
    _next: float = 0.0
    _behind: bool = True

    async def look(self, desk: Desk, now: str) -> bool:
        """Report to the desk who does not get on; return whether streams is behind."""
        if time.monotonic() < self._next:
            return self._behind
        self._next = time.monotonic() + self.every_seconds
        try:
            await self._read(now)
        except (KafkaError, UnavailableError) as error:
            _log.warning("the workers' offsets cannot be read now", **named(error))
            for each in self.watched:
                each.not_seen()
            return self._behind
        for each in self.watched:
            report = each.report(now)
            if report is not None and not explained(desk, each.worker):
                desk.report(report)
            if each.idle:
                for group in _groups(each):
                    desk.mended(group, now)
        self._behind = bool(self.watched[0].stuck(now, EVERY_SECONDS / 2))
        return self._behind

    async def _read(self, now: str) -> None:
        for each in self.watched:
            ends = await end_offsets(self.kafka, each.worker.topics)
            async with admin(self.kafka) as client:
                committed = await committed_offsets(client, each.worker.group)
                members = await members_of(client, each.worker.group)
            each.look(committed, ends, len(members), now)


def _groups(progress: Progress) -> Sequence[str]:
    """Return the groups of the alerts that are over when nothing waits for a worker any more."""
    stage = progress.worker.stage
    sink = stage.removeprefix("sink:")
    return [progress.group, *(group_of("", stage, cause, sink) for cause in _TARGET_CAUSES)]


def explained(desk: Desk, worker: Worker) -> bool:
    """Whether a trouble is open that says why a sink's worker does not get on."""
    return any(
        each.open and each.stage == worker.stage and each.cause in _TARGET_CAUSES
        for each in desk.troubles.values()
    )
