"""A worker whose target takes everything at once. Arguments: servers, prefix, sink, folder."""

import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from casewire.starting import told_to_stop
from schemas.settings import KafkaSettings
from sinks.base import Message, Outcome
from sinks.sql_settings import SqlSettings
from streams.app import create_sink_app, run
from streams.delivery import Delivery
from streams.settings import StreamsSettings


class Nothing:
    """A target that costs nothing."""

    async def open(self) -> None:
        pass

    async def write(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        return ["written"] * len(messages)

    async def close(self) -> None:
        pass


async def main(servers: str, prefix: str, name: str, folder: str) -> None:
    kafka = KafkaSettings(bootstrap_servers=servers, topic_prefix=prefix)
    delivery = Delivery(name, Nothing())
    app = create_sink_app(delivery, SqlSettings(), kafka, StreamsSettings(), Path(folder))
    await run(app, told_to_stop())


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
