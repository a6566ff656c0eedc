"""quixstreams keeps the latest value of each key; runs in a virtual environment of its own.

Arguments: servers, prefix of topics, group, warm, total, folder, name of the topic to publish to.
"""

import sys
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found]


def main(arguments: list[str]) -> None:
    servers, prefix, group, warm, total, folder, output = arguments
    app = Application(
        broker_address=servers,
        consumer_group=group,
        auto_offset_reset="earliest",
        commit_interval=1.0,
        state_dir=folder,
        loglevel="WARNING",
        producer_extra_config={"acks": "all", "enable.idempotence": True},
    )
    seen = 0

    def keep(value: bytes, state: Any) -> bytes:
        nonlocal seen
        seen += 1
        if seen == int(warm):
            print("warm", flush=True)  # noqa: T201
        if state.get_bytes("latest") != value:
            state.set_bytes("latest", value)
        return value

    events = app.topic(prefix + "cases", key_deserializer="bytes", value_deserializer="bytes")
    frame = app.dataframe(events).apply(keep, stateful=True)
    if output:
        frame = frame.to_topic(
            app.topic(prefix + output, key_serializer="bytes", value_serializer="bytes")
        )
    app.run(count=int(total), collect=False)
    sys.stdin.read()  # until the benchmark has seen what it waited for


if __name__ == "__main__":
    main(sys.argv[1:])
