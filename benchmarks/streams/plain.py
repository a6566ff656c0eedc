"""aiokafka alone keeps the latest value of each key: a dictionary and a changelog, no recovery.

Arguments: servers, prefix of topics, group, warm, total, folder.
"""

import asyncio
import sys

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def main(arguments: list[str]) -> None:
    servers, prefix, group, warm, total, _folder = arguments
    consumer = AIOKafkaConsumer(
        prefix + "cases",
        bootstrap_servers=servers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=servers,
        acks="all",
        enable_idempotence=True,
        compression_type="zstd",
        max_batch_size=1_000_000,
    )
    held: dict[bytes, bytes] = {}
    seen = 0
    async with consumer, producer:
        while seen < int(total):
            sends = []
            for place, records in (await consumer.getmany(timeout_ms=1000)).items():
                for record in records:
                    seen += 1
                    if seen == int(warm):
                        print("warm", flush=True)  # noqa: T201
                    if held.get(record.key) != record.value:
                        held[record.key] = record.value
                        sends.append(
                            await producer.send(
                                prefix + "out", record.value, record.key, partition=place.partition
                            )
                        )
            await asyncio.gather(*sends)
            await consumer.commit()
        await asyncio.to_thread(sys.stdin.read)  # until the benchmark has seen what it waited for


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:]))
