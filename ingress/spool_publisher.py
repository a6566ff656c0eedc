"""Events go to Kafka; those that it does not take go to the spool, and from there to Kafka."""

import asyncio
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry

from ingress.publisher import KafkaPublisher, Place, ended
from ingress.records import Event
from ingress.settings import IngressSettings
from ingress.spool import Spool
from ingress.spool_drain import Drain
from ingress.spool_metrics import SpoolMetrics
from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings


def create_publisher(
    kafka: KafkaSettings,
    settings: IngressSettings,
    spool_dir: Path,
    registry: CollectorRegistry = REGISTRY,
) -> "KafkaPublisher | SpooledPublisher":
    """Return a publisher as `[ingress] spool` says; processes may share `spool_dir`."""
    publisher = KafkaPublisher(kafka, settings)
    if settings.spool == "off":
        return publisher
    metrics = SpoolMetrics(registry)
    return SpooledPublisher(publisher, Spool(spool_dir, settings.spool_bytes, metrics), metrics)


class SpooledPublisher:
    """Spools what Kafka does not take: down, slow beyond the deadline, or too much in flight.

    A deadline does not withdraw what the producer has in flight. Such an event is in the spool and
    may be in Kafka too: twice then, with one event id, which is what consumers go by (contract §6).
    """

    def __init__(self, kafka: KafkaPublisher, spool: Spool, metrics: SpoolMetrics) -> None:
        self._kafka = kafka
        self._spool = spool
        self._drain = Drain(spool, kafka, metrics)
        self._draining: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._kafka.start()
        self._draining = asyncio.create_task(self._drain.run())

    async def publish(self, event: Event) -> Place:
        try:
            return await self._kafka.publish(event)
        except UnavailableError:
            await self._spool.append(event)
        except asyncio.CancelledError:
            # The server ends so what outlasts its grace; the answer still goes out.
            await self._spool.append(event)
        return "spool"

    def ready(self) -> str | None:
        reason = self._kafka.ready()
        if reason is None:
            return None
        unable = self._spool.unable()
        return f"{reason}, and {unable}" if unable else None

    def live(self) -> str | None:
        """Return why this process must be started anew."""
        draining = () if self._draining is None else (self._draining,)
        return self._kafka.live() or ended("what empties the spool", draining)

    async def stop(self) -> None:
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.wait([self._draining])
        await self._kafka.stop()
        await self._spool.close()
