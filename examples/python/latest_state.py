#!/usr/bin/env python3
"""Prints the latest state of a case, read from the topic casewire.case-state.

    python latest_state.py 127.0.0.1:9092 my-project/79e25a30-8db5-4a5a-827b-0297b254e87f

It needs aiokafka. It reads the topic to its present end; a subscriber that stays goes on reading.
"""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, ConsumerRecord

States = dict[bytes, tuple[int, bytes | None]]


# recipe
def keep(states: States, record: ConsumerRecord) -> None:
    """Put the record in its place in `states`: version and value of the latest, by key.

    A null has a version as every state has: the case has been gone for 30 days.
    """
    version = int(dict(record.headers)["casewire-version"])
    held, _ = states.get(record.key, (0, b""))
    if version >= held:
        states[record.key] = version, record.value


# end


async def latest_states(servers: str, topic: str) -> States:
    """Read the topic to the end that it has now."""
    states: States = {}
    options = {"auto_offset_reset": "earliest", "enable_auto_commit": False}
    async with AIOKafkaConsumer(topic, bootstrap_servers=servers, **options) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(part) < end for part, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    keep(states, record)
    return states


async def main(servers: str, key: str, topic: str = "casewire.case-state") -> None:
    states = await latest_states(servers, topic)
    _, value = states.get(key.encode(), (0, None))
    if value is None:
        sys.exit(f"there is no state of {key}; keys are written project/case id")
    sys.stdout.buffer.write(value + b"\n")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: latest_state.py SERVERS PROJECT/CASE_ID [TOPIC]")
    asyncio.run(main(*sys.argv[1:]))
