"""The transport that has Faust use the consumer and the producer of batches."""

from collections.abc import Callable

import faust
from faust.transport.drivers import aiokafka as driver

from streams.batches.consumer import BatchConsumer
from streams.batches.producer import BatchProducer


class BatchTransport(driver.Transport):
    #: Whether the agents stand still for a good reason, such as a target that is down.
    excused: Callable[[], bool] = staticmethod(lambda: False)
    #: Whether the headers of all records stay bytes, not only those of changelogs.
    raw = False

    Consumer = BatchConsumer  # type: ignore[mutable-override]
    Producer = BatchProducer  # type: ignore[mutable-override]


def use_batches(
    app: faust.App, excused: Callable[[], bool] = lambda: False, *, raw: bool = False
) -> None:
    """Set the app's transport; before topics and agents are declared.

    While the agents are `excused`, standing still does not end the process. `raw`: they need few
    headers of a record.
    """
    transport = BatchTransport(app.conf.broker_consumer, app)
    transport.excused = excused
    transport.raw = raw
    app.transport = transport
    app.producer_transport = BatchTransport(app.conf.broker_producer, app)
