#!/usr/bin/env python3
"""Prints each dead letter: where and why the record failed, and the body as it was.

    python dead_letters.py 127.0.0.1:9092

It needs aiokafka. It reads the topic casewire.dead-letters to its present end. Bodies hold personal
data.
"""

import asyncio
import sys
from base64 import b64decode
from json import loads  # noqa: TID251 - a subscriber need not have orjson

from aiokafka import AIOKafkaConsumer


def told(value: bytes) -> bytes:
    """Return a letter as text, with the original body, or where to find one above 1 MiB."""
    letter = loads(value)
    original = letter["original"]
    head = f"{letter['failed_at']} {letter['stage']} {letter['cause']}: {letter['explanation']}"
    if original["value"] is not None:
        return head.encode() + b"\n" + b64decode(original["value"]) + b"\n"
    place = f"{original['topic']}/{original['partition']} at offset {original['offset']}"
    return f"{head}\n(a body of {original['value_bytes']} bytes: {place})\n".encode()


async def main(servers: str, topic: str = "casewire.dead-letters") -> None:
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=servers, auto_offset_reset="earliest", enable_auto_commit=False
    ) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(part) < end for part, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    sys.stdout.buffer.write(told(record.value))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: dead_letters.py SERVERS [TOPIC]")
    asyncio.run(main(*sys.argv[1:]))
